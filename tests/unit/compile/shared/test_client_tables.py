"""Route tables that are put together from shared hosts are those of the plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.api.base import Object
from meshd.api.virtual_service.types import VirtualService
from meshd.compile.envoy.routes import route_table as printed
from meshd.compile.http import client_hosts
from meshd.compile.http.client_hosts import Deciding
from meshd.compile.http.delegation import delegated
from meshd.compile.http.routes import http_ports, route_table
from meshd.compile.memo import Memo
from meshd.compile.plan.routes import VirtualHost
from meshd.compile.shared import client_tables
from meshd.compile.shared.client_tables import client_table
from meshd.compile.shared.tables_of_all import CommonTables
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import scopes
from meshd.compile.visibility.view import View
from meshd.model.snapshot import MeshOptions, Snapshot
from tests.unit.compile.test_incremental import WHOLE, Mesh, edits, objects, place_of

OTHERS = objects("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: by-client, namespace: back}
spec:
  hosts: [api, "*.wild.test", db.front.svc.cluster.local]
  http:
  - match: [{sourceLabels: {app: web}}]
    route: [{destination: {host: web.front, subset: v2}}]
  - match: [{sourceNamespace: front, port: 80}]
    route: [{destination: {host: web.front}}, {destination: {host: db}, weight: 3}]
  - route: [{destination: {host: hidden}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: front}
spec:
  host: api.back.svc.cluster.local
  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: private, namespace: edge}
spec:
  exportTo: ["."]
  hosts: [api.back.svc.cluster.local]
  http: [{timeout: 3s, route: [{destination: {host: api.back.svc.cluster.local}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: edge}
spec: {clusterIP: 198.18.1.7, selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: same-address, namespace: edge}
spec:
  hosts: [198.18.1.1, WEB.front, "*.wild.test"]
  resolution: DYNAMIC_DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
""")
CIDRS = ("", "198.18.0.0/15")


def views(snapshot: Snapshot, memo: Memo) -> Iterator[View]:
    index = MeshIndex.of(delegated(snapshot), memo)
    for scope in sorted(set(scopes(snapshot).values())):
        yield View.of(index, scope)


def taken(mesh: Mesh, others: frozenset[int], **options: Any) -> Snapshot:
    """A mesh, with some of the other objects."""
    numbered: dict[int, Object] = {1000 + number: OTHERS[number] for number in others}
    mesh = msgspec.structs.replace(mesh, objects=mesh.objects | numbered)
    found = mesh.snapshot()
    return msgspec.structs.replace(found, options=msgspec.structs.replace(found.options, **options))


more = st.tuples(st.just("more"), st.integers(0, len(OTHERS) - 1))
option = st.tuples(st.sampled_from(CIDRS), st.sampled_from(["ALLOW_ANY", "REGISTRY_ONLY"]))


@settings(max_examples=60)
@given(st.lists(st.one_of(edits, more, more), max_size=12), option)
def test_after_each_edit_tables_are_those_that_the_plan_has(
    sequence: list[tuple[str, Any]], option: tuple[str, str]
) -> None:
    mesh, memo, others = Mesh(), Memo(), frozenset[int]()
    cidr, policy = option
    for edit in [("ready", ""), *sequence]:
        if edit[0] == "more":
            others ^= {int(edit[1])}
        else:
            mesh.edit(edit)
        snapshot = taken(mesh, others, service_cidr=cidr, outbound_policy=policy)
        for view in views(snapshot, memo):
            for port in http_ports(view):
                found = client_table(view, port, memo)
                assert found.message() == printed(route_table(view, port)), (view.scope, port)
        memo.end_round()


SEEN_ALIKE: list[tuple[str, Any]] = [
    ("object", place) for place, one in enumerate(WHOLE) if one.metadata.name == "hidden"
]
"""Removes the service that only its own namespace sees."""
HIDING = {"private", "exported"}
"""Edits after which not all clients see the same."""
alike = st.one_of(
    st.tuples(st.just("more"), st.sampled_from([0, 1, 3, 4])),
    edits.filter(lambda edit: edit[0] not in HIDING and edit not in SEEN_ALIKE),
)


@settings(max_examples=60)
@given(st.lists(alike, max_size=12), option)
def test_tables_with_common_hosts_are_those_that_the_plan_has(
    sequence: list[tuple[str, Any]], option: tuple[str, str]
) -> None:
    """Where all clients see the same services and VirtualServices."""
    mesh, memo, others = Mesh(), Memo(), frozenset[int]()
    cidr, policy = option
    for edit in [*SEEN_ALIKE, *sequence]:
        if edit[0] == "more":
            others ^= {int(edit[1])}
        else:
            mesh.edit(edit)
        snapshot = taken(mesh, others, service_cidr=cidr, outbound_policy=policy)
        index = MeshIndex.of(delegated(snapshot), memo)
        assert index.is_seen_alike
        common = CommonTables(index, memo)
        for scope in sorted(set(scopes(snapshot).values())):
            view = View.of(index, scope)
            wanted = [route_table(view, port) for port in http_ports(view)]
            found = [table.message() for table in common.tables(view)]
            assert found == list(map(printed, wanted)), scope
            alone = [client_table(view, port, Memo()) for port in http_ports(view)]
            versions = [one.version for one in common.tables(view)]
            assert versions == [one.version for one in alone], scope
        memo.end_round()


def test_common_hosts_are_looked_at_once(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[tuple[str, str]]()
    decide = client_hosts.deciding

    def counted(view: View, host: str, port: int) -> Deciding:
        looked.append((view.scope.namespace, f"{host}:{port}"))
        return decide(view, host, port)

    monkeypatch.setattr(client_hosts, "deciding", counted)
    mesh = Mesh()
    for edit in SEEN_ALIKE:
        mesh.edit(edit)
    snapshot = taken(mesh, frozenset())
    memo = Memo()
    index = MeshIndex.of(delegated(snapshot), memo)
    common = CommonTables(index, memo)
    for scope in set(scopes(snapshot).values()):
        list(common.tables(View.of(index, scope)))
    of_lone = {namespace for namespace, name in looked if name == "lone.lone.svc.cluster.local:80"}
    assert of_lone <= {"", "lone"}
    assert made.count("lone.lone.svc.cluster.local:80") <= 2


def tables(snapshot: Snapshot, memo: Memo) -> dict[str, object]:
    found = {
        table.name: table
        for view in views(snapshot, memo)
        for table in client_tables.client_tables(view, memo)
    }
    memo.end_round()
    return dict(found)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the hosts that are made."""
    names: list[str] = []
    make = client_hosts.virtual_host

    def counted(by: Deciding) -> VirtualHost | None:
        names.append(f"{by.host.host}:{by.port}")
        return make(by)

    monkeypatch.setattr(client_hosts, "virtual_host", counted)
    return names


def test_scopes_share_the_hosts_that_they_see_alike(made: list[str]) -> None:
    """Only in its own namespace has a service a short name."""
    mesh = Mesh()
    mesh.edit(("object", place_of("api", VirtualService)))
    tables(taken(mesh, frozenset()), Memo())
    assert made.count("db.back.svc.cluster.local:8080") == 2
    assert made.count("outside.example.com:443") == 0


def test_a_change_of_a_virtual_service_makes_its_hosts_and_no_others(made: list[str]) -> None:
    mesh, memo = Mesh(), Memo()
    before = tables(taken(mesh, frozenset()), memo)
    made.clear()
    after = tables(taken(mesh, frozenset({2})), memo)
    assert made == [f"api.back.svc.cluster.local:{port}" for port in (80, 9000)]
    changed = {name for name, table in after.items() if before[name] is not table}
    assert changed == set(filter(re.compile(r"(80|9000)@edge\b").match, after))


def test_an_endpoint_that_comes_makes_no_host(made: list[str]) -> None:
    mesh, memo = Mesh(), Memo()
    before = tables(taken(mesh, frozenset()), memo)
    made.clear()
    mesh.edit(("presence", "back.w12"))
    after = tables(taken(mesh, frozenset()), memo)
    assert made == []
    assert all(before[name] is table for name, table in after.items())


def test_nothing_is_shared_between_options(made: list[str]) -> None:
    memo = Memo()
    tables(taken(Mesh(), frozenset()), memo)
    made.clear()
    options: MeshOptions = msgspec.structs.replace(MeshOptions(), domain="other.test")
    tables(taken(Mesh(), frozenset(), domain=options.domain), memo)
    assert made
