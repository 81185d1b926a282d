"""ServiceEntries, and what is in no registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.node.node import Node

ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext, namespace: mesh}
spec:
  hosts: [ext.test]
  addresses: [198.19.202.1]
  location: MESH_EXTERNAL
  resolution: RESOLUTION
  ports:
  - {number: 80, name: http, protocol: HTTP, targetPort: 8080}
  - {number: 91, name: tcp, protocol: TCP, targetPort: 9000}
"""


def check(node: Node, client: str = "alice") -> None:
    (answer,) = node.answers(client, "http", "ext.test:80", 1)
    assert answer["pod"].startswith("external")
    assert answer["xfcc"] == []
    (answer,) = node.answers(client, "tcp", "ext.test:91", 1)
    assert answer["pod"].startswith("external")


@pytest.fixture(scope="module")
def closed(make: Callable[..., Node]) -> Iterator[Node]:
    """A node that lets nothing out that it does not know."""
    node = make(mesh={"outbound_policy": "REGISTRY_ONLY"})
    node.start()
    write = node.write
    node.up(
        write.dump(
            write.namespace("mesh", enrolled=True),
            write.namespace("outside", enrolled=False),
            write.deployment("alice"),
            write.deployment("external", "outside", program="server.py", ready=8080),
        )
    )
    yield node
    node.close()


def test_static_endpoints(node: Node) -> None:
    address = node.pod("external.outside").plan.address
    entry = ENTRY.replace("RESOLUTION", "STATIC") + f"  endpoints: [{{address: {address}}}]\n"
    with node.applied(entry):
        check(node)


def test_endpoints_by_name(node: Node) -> None:
    """The proxies resolve it: localhost is a name that every resolver knows, and nothing there."""
    entry = ENTRY.replace("RESOLUTION", "DNS") + "  endpoints: [{address: localhost}]\n"
    with node.applied(entry):
        assert node.status_of("alice", "http://ext.test/who") == "503"


def test_the_clients_own_destination(node: Node) -> None:
    address = node.pod("external.outside").plan.address
    entry = ENTRY.replace("RESOLUTION", "NONE").replace("198.19.202.1", address)
    entry = entry.replace("number: 80", "number: 8080").replace("number: 91", "number: 9000")
    entry = entry.replace(", targetPort: 8080", "").replace(", targetPort: 9000", "")
    with node.applied(entry):
        (answer,) = node.answers("alice", "http", f"{address}:8080", 1)
        assert answer["pod"].startswith("external")
        assert answer["headers"]["x-request-id"]
        assert len(node.answers("alice", "tcp", f"{address}:9000", 1)) == 1


def test_connections_to_unknown_hosts_are_let_out_by_default(node: Node) -> None:
    address = node.pod("external.outside").plan.address
    assert len(node.answers("alice", "http", f"{address}:8080", 1)) == 1
    assert len(node.answers("alice", "tcp", f"{address}:9000", 1)) == 1


def test_connections_to_unknown_hosts_are_closed_under_registry_only(closed: Node) -> None:
    pod = closed.pod("external.outside").plan
    for address in (pod.address, f"[{pod.address_v6}]"):
        assert closed.status_of("alice", f"http://{address}:8080/who") in {"000", "502"}
        done = closed.curl("alice", "-m", "2", f"telnet://{address}:9000")
        assert "pod" not in done.output
    entry = ENTRY.replace("RESOLUTION", "STATIC") + f"  endpoints: [{{address: {pod.address}}}]\n"
    with closed.applied(entry):
        check(closed)
        assert closed.status_of("alice", "http://ext.test/who", "-H", "host: other.test") == "502"
    assert closed.status_of("alice", "http://198.19.202.1/who") in {"000", "502"}


TIMED_OUT = 28
"""curl's exit status."""


@pytest.mark.parametrize("host", ["foreign.test", "server.mesh.svc.wrong", "198.19.9.9", ""])
def test_whatever_host_is_asked_for_at_a_services_address_is_that_services(
    node: Node, host: str
) -> None:
    """Nobody but the mesh has that address, so there is nowhere to pass the request to."""
    done = node.curl("alice", "-m", "30", "-H", f"host: {host}", "http://server.mesh/who")
    assert '"pod": "server' in done.output.replace('":"', '": "'), done
    assert "spiffe://cluster.local/ns/mesh/sa/alice" in done.output


@pytest.mark.parametrize(
    "target",
    [
        "telnet://server.mesh:1234",
        "telnet://server.mesh:81",
        "https://server.mesh",
        "http://server.mesh:8081",
        "telnet://198.19.99.99:91",
        "telnet://198.19.99.99:70",
        "http://198.19.99.99:70",
        "telnet://198.19.99.99:1234",
    ],
)
def test_connections_to_where_only_the_mesh_could_be_are_refused_at_once(
    node: Node, target: str
) -> None:
    """Not passed through to an address that nobody else has, which takes as long as a client
    waits."""
    done = node.curl("alice", "-m", "30", target)
    assert done.status != TIMED_OUT, done
    assert not done.output


def test_requests_to_where_no_service_is_are_answered_at_once(node: Node) -> None:
    assert node.status_of("alice", "http://198.19.99.99/who", "-m", "30") == "502"


def test_an_external_name_of_a_service_is_that_service_on_all_its_ports(node: Node) -> None:
    target = "server.mesh.svc.cluster.local"
    write = node.write
    alias = write.manifest(
        "Service",
        "alias",
        "office",
        spec={"type": "ExternalName", "externalName": target, "ports": [{"port": 80}]},
    )
    route = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: to-alias, namespace: mesh}
spec:
  hosts: [routed.test]
  http: [{route: [{destination: {host: alias.office.svc.cluster.local, port: {number: 70}}}]}]
"""
    with node.applied(write.dump(alias) + "---" + route):
        for port in (80, 70):
            (answer,) = node.answers("alice", "http", f"alias.office:{port}", 1)
            assert answer["pod"].startswith("server")
        assert len(node.answers("alice", "tcp", "alias.office:91", 1)) == 1
        address = node.exec("alice", "getent", "hosts", "alias.office").output.split()[0]
        routed = ("-H", "host: routed.test", f"http://{address}/who")
        assert "server" in node.curl("alice", *routed).output
