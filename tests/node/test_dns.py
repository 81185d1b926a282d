"""Names as a workload asks for them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.node.conftest import Node

QUERY = """
import json, socket, struct, sys
name, kind = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(8)
labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
s.sendto(struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + bytes(1) + struct.pack(">2H", kind, 1),
         ("198.19.0.10", 53))
got = struct.unpack(">6H", s.recv(4096)[:12])
print(json.dumps([got[1] & 15, got[3]]))
"""
LOOK_UP = """
import json, socket, sys
print(json.dumps(sorted({found[4][0] for found in socket.getaddrinfo(sys.argv[1], 80)})))
"""
A, AAAA, MX, TXT = 1, 28, 15, 16
NO_ERROR, NO_SUCH_NAME, NOT_IMPLEMENTED = 0, 3, 4


def look_up(node: Node, name: str, client: str = "alice") -> list[str]:
    done = node.exec(client, sys.executable, "-c", LOOK_UP, name)
    return json.loads(done.output) if done.status == 0 else []


def query(node: Node, name: str, kind: int) -> tuple[int, int]:
    """Its response code, and how many answers there were."""
    done = node.exec("alice", sys.executable, "-c", QUERY, name, str(kind))
    assert done.status == 0, done.errors
    code, answers = json.loads(done.output)
    return code, answers


def test_a_service_has_the_same_address_under_all_its_names(node: Node) -> None:
    forms = (
        "server",
        "server.mesh",
        "server.mesh.svc",
        "server.mesh.svc.cluster.local",
        "server.mesh.svc.cluster.local.",
    )
    (address,) = look_up(node, forms[0])
    assert address.startswith("198.19.")
    assert [look_up(node, form) for form in forms] == [[address]] * len(forms)


def test_a_headless_service_is_its_pods(node: Node) -> None:
    assert look_up(node, "bare") == [node.pod("server").plan.address]


def test_a_service_entrys_host_has_its_address(node: Node) -> None:
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: named, namespace: mesh}
spec:
  hosts: [shop.test]
  addresses: [198.19.201.7]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 198.18.0.9}]
"""
    assert look_up(node, "shop.test") == []
    with node.applied(entry):
        assert look_up(node, "shop.test") == ["198.19.201.7"]
    assert look_up(node, "shop.test") == []


def test_a_short_name_is_of_the_clients_own_namespace(node: Node) -> None:
    assert look_up(node, "external") == []


def test_there_is_no_answer_for_types_that_are_not_addresses(node: Node) -> None:
    """At once, and with a code that tells a resolver to stop asking."""
    for kind in (MX, TXT):
        assert query(node, "server.mesh.svc.cluster.local", kind) == (NOT_IMPLEMENTED, 0)


# ---- names outside the mesh

RESOLVER = '''
"""Knows one name; counts what it is asked for others."""
import socket, struct
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
while True:
    query, client = server.recvfrom(4096)
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    name, question = ".".join(labels), query[12 : at + 5]
    print(kind, name, flush=True)
    known = name == "public.test"
    answers = 1 if known and kind == 1 else 0
    head = query[:2] + struct.pack(">5H", 0x8180 | (0 if known else 3), 1, answers, 0, 0)
    record = struct.pack(">3HIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton("198.18.250.250")
    server.sendto(head + question + record * answers, client)
'''


@pytest.fixture(scope="module")
def resolving(make: Callable[..., Node]) -> Iterator[Node]:
    """A node whose resolver is a pod outside the mesh: the first pod has the tenth address."""
    from_cidr: list[str] = []
    node = make()
    from_cidr.append(node.cidr.replace(".0/24", ".10"))
    node.write_settings(mesh={"dns_upstreams": from_cidr})
    (node.images / "resolver.py").write_text(RESOLVER)
    node.start()
    write = node.write
    node.up(
        write.dump(
            write.namespace("mesh", enrolled=True),
            write.namespace("outside", enrolled=False),
            write.deployment("resolver", "outside", program="resolver.py"),
            write.deployment("alice"),
        )
    )
    assert node.pod("resolver.outside").plan.address == from_cidr[0]
    yield node
    node.close()


def asked(node: Node) -> str:
    return node.meshctl("testbed", "logs", "-n", "outside", "deploy/resolver").output


def test_other_names_are_the_resolvers(resolving: Node) -> None:
    assert look_up(resolving, "public.test") == ["198.18.250.250"]
    assert query(resolving, "public.test", A) == (NO_ERROR, 1)
    assert query(resolving, "nosuch.test", A) == (NO_SUCH_NAME, 0)
    assert "nosuch.test" in asked(resolving)
