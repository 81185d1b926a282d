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


def test_what_is_not_known_is_let_out_by_default(node: Node) -> None:
    address = node.pod("external.outside").plan.address
    assert len(node.answers("alice", "http", f"{address}:8080", 1)) == 1
    assert len(node.answers("alice", "tcp", f"{address}:9000", 1)) == 1


def test_what_is_not_known_is_not_let_out_if_only_the_registry_counts(closed: Node) -> None:
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
