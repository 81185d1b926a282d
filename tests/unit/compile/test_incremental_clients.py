"""A compiler that goes on from its last result leaves no client with what a fresh one would not
give it: rules of single clients, delegates' conditions, and secrets."""

from __future__ import annotations

import gc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.compile.compiled import Kind
from meshd.compile.compiler import Compiler
from meshd.compile.visibility.seen import Seen
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.test_incremental import objects, serialized
from tests.unit.numbered import workload

OBJECTS = {
    one.metadata.name: one
    for one in objects("""
apiVersion: v1
kind: Service
metadata: {name: web, namespace: front}
spec: {clusterIP: 198.18.1.1, selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: front, annotations: {meshd.io/tunnels: "true"}}
spec: {clusterIP: 198.18.1.2, selector: {app: db}, ports: [{port: 5432, name: tcp}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: back}
spec:
  hosts: [web.front]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: private, namespace: front}
spec:
  host: web
  exportTo: ["."]
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: of-db, namespace: back}
spec:
  host: db.front
  subsets: [{name: v1, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: credential, namespace: front}
spec:
  host: web
  workloadSelector: {matchLabels: {app: web}}
  trafficPolicy: {tls: {mode: SIMPLE, credentialName: secret}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: front}
spec: {hosts: [web], http: [{delegate: {name: part, namespace: back}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: part, namespace: back}
spec:
  exportTo: [front]
  http:
  - match: [{sourceLabels: {tier: a}}]
    route: [{destination: {host: web.front.svc.cluster.local}}]
  - fault: {abort: {httpStatus: 403, percentage: {value: 100}}}
    route: [{destination: {host: web.front.svc.cluster.local}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: by-port, namespace: back}
spec:
  hosts: [db.front]
  tcp: [{match: [{port: 5432}], route: [{destination: {host: db.front, port: {number: 5432}}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shortly, namespace: front}
spec:
  hosts: [elsewhere.test]
  http: [{route: [{destination: {host: web.front}}]}]
""")
}
CLIENTS = {
    one.uid: one
    for one in (
        workload(1, "front", app="web"),
        workload(2, "front", app="db", version="v1"),
        workload(3, "back"),
        workload(4, "other", tier="a"),
        workload(5, "other"),
    )
}


class Mesh(msgspec.Struct):
    """The objects that there are, by name, and the workloads of this node, by uid."""

    there: set[str]
    options: MeshOptions = MeshOptions()

    @property
    def serving(self) -> frozenset[str]:
        return frozenset(self.there & CLIENTS.keys())

    def compile(self, compiler: Compiler) -> dict[tuple[Pool, Kind, str], bytes]:
        own: list[Workload] = [one for uid, one in CLIENTS.items() if uid in self.there]
        found = [one for name, one in OBJECTS.items() if name in self.there]
        snapshot = build_snapshot(found, own, self.options, {"web.front": ("198.18.1.9",)})
        return serialized(compiler.compile(snapshot, self.serving))

    def check(self, compiler: Compiler) -> None:
        """Compile with a compiler and with a fresh one, and compare."""
        fresh = Compiler()
        assert self.compile(compiler) == self.compile(fresh)
        assert compiler.credentials == fresh.credentials
        assert compiler.entrances == fresh.entrances


@pytest.mark.parametrize(
    ("there", "changed"),
    [
        pytest.param({"web", "private", "front.w1", "other.w5"}, {"other.w5"}, id="assignments"),
        pytest.param({"web", "root", "part", "front.w1", "other.w5"}, {"other.w4"}, id="delegates"),
        pytest.param({"web", "credential", "front.w1"}, {"web"}, id="secrets"),
    ],
)
def test_what_comes_or_goes_changes_what_it_would_change_afresh(
    there: set[str], changed: set[str]
) -> None:
    """Rules that end may share assignments with those that stay; a delegate's conditions tell its
    root's clients apart; and a service that goes needs no secret any more."""
    mesh, compiler = Mesh(there), Compiler()
    for _ in range(3):
        mesh.check(compiler)
        mesh.there ^= changed


@settings(max_examples=60)
@given(
    st.sets(st.sampled_from(sorted(OBJECTS | CLIENTS))),
    st.lists(st.sets(st.sampled_from(sorted(OBJECTS | CLIENTS)), min_size=1, max_size=2)),
    st.builds(MeshOptions, hbone=st.booleans()),
)
def test_any_of_them_may_come_or_go(
    there: set[str], changes: list[set[str]], options: MeshOptions
) -> None:
    mesh, compiler = Mesh(there, options), Compiler()
    mesh.check(compiler)
    for changed in changes:
        mesh.there ^= changed
        mesh.check(compiler)


def test_a_shortcut_that_fails_leads_to_a_full_compilation_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("of a shortcut")

    mesh, compiler = Mesh({"web", "front.w1"}), Compiler()
    mesh.check(compiler)
    monkeypatch.setattr("meshd.compile.compiler.with_services", broken)
    for _ in range(2):
        mesh.there ^= {"db"}
        mesh.check(compiler)
    (record,) = caplog.records
    assert vars(record)["MESHD_EVENT"] == "shortcut-failed"
    assert record.exc_info
    assert "by a fault of meshd: KeyError('of a shortcut')" in record.getMessage()


def test_what_no_compilation_can_hold_is_no_fault_of_a_shortcut(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise ValueError("no message holds this")

    mesh, compiler = Mesh({"web", "front.w1"}), Compiler()
    mesh.check(compiler)
    mesh.there ^= {"db"}
    with monkeypatch.context() as patched:
        for name in ("with_services", "scopes"):
            patched.setattr(f"meshd.compile.compiler.{name}", refused)
        with pytest.raises(ValueError, match="no message holds this"):
            mesh.compile(compiler)
    assert not caplog.records
    mesh.check(compiler)


def test_services_that_have_come_and_gone_leave_nothing_behind() -> None:
    compiler, counts = Compiler(), list[int]()
    own = CLIENTS["front.w1"]
    for number in range(9):
        name = f"passing{number}"
        meta = msgspec.structs.replace(OBJECTS["web"].metadata, name=name)
        passing = msgspec.structs.replace(OBJECTS["web"], metadata=meta)
        for found in ([OBJECTS["db"], passing], [OBJECTS["db"]]):
            compiler.compile(build_snapshot(found, [own], MeshOptions(), {}), {own.uid})
        gc.collect()
        counts.append(sum(isinstance(one, Seen) for one in gc.get_objects()))
    assert counts[2] == counts[-1]
