"""Tunnels between nodes whose workloads have addresses of IPv6."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.capture.rules import inside
from meshd.proxy.admin import Admin
from tests.envoy.between.mesh import Host
from tests.envoy.between.tunnels import Nodes, two_nodes
from tests.envoy.captured.place import run
from tests.waiting import PATIENCE

VIRTUAL = "fd00:198:0:77::1:1"
SERVICE = f"""
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: six, namespace: servers, annotations: {{meshd.io/tunnels: "true"}}}}
spec:
  hosts: [six.test]
  addresses: ["{VIRTUAL}"]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: server}}}}
  ports: [{{number: 9006, name: tcp, protocol: TCP}}]
"""


def address(host: Host) -> str:
    return f"fd00:198:0:77::{host.address.rpartition('.')[2]}"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with two_nodes(tmp_path_factory) as made:
        for mesh in made:
            for host in mesh.hosts.values():
                own = ("ip", "-n", host.name)
                run(*own, "addr", "add", f"{address(host)}/64", "dev", "eth0", "nodad")
        made.load(SERVICE, addresses={"server": address(made.far.hosts["server"])})
        yield made


@pytest.fixture
def peers(nodes: Nodes) -> Iterator[list[str]]:
    """Of the application, which says who it thinks they are."""
    seen: list[str] = []
    with inside.entered(Path(nodes.far.hosts["server"].netns)):
        listener = socket.create_server(("::", 9006), family=socket.AF_INET6)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = listener.accept()
                with connection:
                    seen.append(peer[0])
                    connection.sendall(connection.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    yield seen
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)
    listener.close()


def opened(nodes: Nodes) -> int:
    """Tunnels so far, of the clients' node."""
    name = "cluster.hbone.upstream_cx_total"
    return asyncio.run(Admin(nodes.near.admin).stats(f"^{name}$")).get(name, 0)


def test_connections_of_ipv6_share_a_tunnel_and_are_the_clients(
    nodes: Nodes, peers: list[str]
) -> None:
    client = nodes.near.hosts["client"]
    for _ in range(10):
        with inside.entered(Path(client.netns)):
            connection = socket.socket(socket.AF_INET6)
        with connection:
            connection.settimeout(PATIENCE)
            connection.connect((VIRTUAL, 9006))
            connection.sendall(b"question")
            assert connection.recv(100) == b"question"
    assert peers == [address(client)] * 10
    assert opened(nodes) == 1
