"""What proxies are told of services of the host: the same as of others, but where it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from meshd.api.read import read_objects
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.compile.envoy.wellknown import NETNS_STATE
from meshd.compile.names import LOCAL
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import HostService, NamedPort, Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.messages import as_messages

OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: mesh}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8081}, {name: http-other, port: 81}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web, namespace: mesh, annotations: {meshd.io/unit: web.service}}
spec: {address: 198.18.0.1, labels: {app: web}, serviceAccount: web}
"""


def service(**host: Any) -> Workload:
    place: dict[str, Any] = {"cgroup": "s/web", "outbound_port": 15101, "inbound_port": 15102}
    return Workload(
        uid="mesh.web",
        name="web",
        namespace="mesh",
        netns="",
        service_account="web",
        labels={"app": "web"},
        addresses=("198.18.0.1", "fd00:198::1"),
        ports=(NamedPort("http", 8081),),
        host=HostService(**(place | host)),
    )


def snapshot(workload: Workload) -> Snapshot:
    objects = [read.object for read in read_objects(OBJECTS, "test.yaml")]
    addresses = {"web.mesh.svc.cluster.local": ("198.19.0.1",)}
    return build_snapshot(objects, [workload], MeshOptions(), addresses)


def every(compiled: Mapping[Pool, Compiled]) -> dict[str, Any]:
    """All listeners, of whichever pool."""
    return {
        name: listener
        for found in compiled.values()
        for name, listener in found[Kind.LISTENER].items()
    }


def listeners(workload: Workload) -> dict[str, Any]:
    return every(as_messages(Compiler().compile(snapshot(workload), [workload.uid])))


def places(listener: Any) -> list[tuple[str, int, str]]:
    addresses = [listener.address, *(one.address for one in listener.additional_addresses)]
    return [(a.socket_address.address, a.socket_address.port_value, netns_of(a)) for a in addresses]


def netns_of(address: Any) -> str:
    return address.socket_address.network_namespace_filepath


@pytest.mark.parametrize(
    ("what", "v4", "v6", "port"),
    [
        ("outbound", "127.0.0.1", "::1", 15101),
        ("dns", "127.0.0.1", "::1", 15101),
        ("inbound", "0.0.0.0", "::", 15102),
    ],
)
def test_its_listeners_are_on_its_own_ports_of_the_host(
    what: str, v4: str, v6: str, port: int
) -> None:
    assert places(listeners(service())[f"mesh.web|{what}"]) == [(v4, port, ""), (v6, port, "")]


@pytest.mark.parametrize(("what", "port"), [("outbound", 15101), ("inbound", 15102)])
def test_direct_connections_to_such_a_port_are_refused(what: str, port: int) -> None:
    listener = listeners(service())[f"mesh.web|{what}"]
    ways = listener.filter_chain_matcher.matcher_tree.exact_match_map.map
    (taken,) = (c for c in listener.filter_chains if c.name == ways[str(port)].action.name)
    assert not taken.filters


def test_nothing_is_opened_in_a_namespace() -> None:
    """The key of pools asks for a namespace that was noted, but none is, but for the short way,
    where it is an endpoint's."""
    for name, listener in listeners(service()).items():
        if name == LOCAL:
            continue
        assert not any(netns for _, _, netns in places(listener))
        noted = listener.SerializeToString().replace(f"%FILTER_STATE({NETNS_STATE}".encode(), b"")
        assert b"network_namespace" not in noted


def test_its_identity_is_on_all_it_sends() -> None:
    sent = listeners(service())["mesh.web|outbound"].SerializeToString()
    assert b"spiffe://cluster.local/ns/mesh/sa/web" in sent


def test_new_ports_make_new_listeners() -> None:
    compiler = Compiler()
    first = every(as_messages(compiler.compile(snapshot(service()), ["mesh.web"])))
    moved = service(outbound_port=15103, inbound_port=15104)
    second = every(as_messages(compiler.compile(snapshot(moved), ["mesh.web"])))
    assert first["mesh.web|inbound"] != second["mesh.web|inbound"]


def test_mutual_tls_is_spoken_where_it_is_captured_only() -> None:
    """And the entry that declares it is no second endpoint."""
    found = snapshot(service()).services["web.mesh.svc.cluster.local"].endpoints
    assert [(one.port, one.mutual_tls) for one in found] == [(8081, True), (81, False)]


def test_an_entry_of_another_host_is_an_endpoint() -> None:
    other = msgspec.structs.replace(service(), name="other", uid="mesh.other", labels={})
    (first, *_) = snapshot(other).services["web.mesh.svc.cluster.local"].endpoints
    assert (first.address, first.workload, first.mutual_tls) == ("198.18.0.1", "", True)
