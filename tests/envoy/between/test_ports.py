"""Requests to different ports that one connection manager takes: each port has its own routes."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator

import pytest

from meshd.model.snapshot import MeshOptions
from tests.envoy.between.application import Application
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Mesh, answer, headers

BASE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: servers}}
spec:
  hosts: [{name}.test]
  addresses: [{address}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: server}}}}
  ports: [{ports}]
---
"""
ONE = BASE.format(
    name="server",
    address=ADDRESS,
    ports="{number: 8080, name: http, protocol: HTTP},"
    " {number: 8081, name: more, protocol: HTTP, targetPort: 8080}",
)
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: server, namespace: servers}
spec:
  hosts: [server.test]
  http:
  - {match: [{port: 8081}], directResponse: {status: 418}}
  - {route: [{destination: {host: server.test, port: {number: 8080}}}]}
---
"""
TCP = BASE.format(
    name="tcp", address="198.19.77.2", ports="{number: 8080, name: tcp, protocol: TCP}"
)
NEW = BASE.format(
    name="new",
    address="198.18.77.3",  # the server's own, where other ports refuse at once
    ports="{number: 8082, name: http, protocol: HTTP, targetPort: 8080}",
)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("ports"), ("client", "server")) as made:
        for name in ("client", "server"):
            made.capture(name)
        yield made


@pytest.fixture(scope="module", autouse=True)
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080,), ())
    yield made
    made.close()


def load(mesh: Mesh, text: str) -> None:
    workloads = map(mesh.workload, ("client", "server"))
    mesh.load(text, *workloads, options=MeshOptions(short_way=True, direct_requests=True))


def status(mesh: Mesh, port: int, *lines: str, host: str = "server.test") -> int:
    with mesh.hosts["client"].connect(ADDRESS, port) as client:
        return answer(client, "\n".join(["GET / HTTP/1.1", f"host: {host}", *lines])).status


def test_a_host_has_on_each_port_the_routes_of_that_port(mesh: Mesh) -> None:
    load(mesh, ONE + ROUTES)
    assert [status(mesh, port) for port in (8080, 8081)] == [200, 418]


@pytest.mark.parametrize("table", ["8080", "8081", "none", ""])
def test_a_client_does_not_choose_its_table(
    mesh: Mesh, application: Application, table: str
) -> None:
    load(mesh, ONE + ROUTES)
    found = [status(mesh, port, f"x-meshd-table: {table}") for port in (8080, 8081)]
    assert found == [200, 418]
    assert "x-meshd-table" not in headers(application.heads[-1])


def test_a_connection_keeps_its_routes_when_its_port_gets_another_protocol(mesh: Mesh) -> None:
    load(mesh, ONE + ROUTES)
    with mesh.hosts["client"].connect(ADDRESS, 8080) as client:
        for text in (ONE + ROUTES + TCP, ONE + ROUTES):
            load(mesh, text)
            assert answer(client, "GET / HTTP/1.1\nhost: server.test").status == 200
            assert status(mesh, 8080) == 200


def test_a_port_that_comes_has_its_routes_at_once(mesh: Mesh) -> None:
    """Without them its requests would be answered 404."""
    seen: set[int] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                mesh.hosts["client"].connect("198.18.77.3", 8082) as client,
            ):
                seen.add(answer(client, "GET / HTTP/1.1\nhost: new.test").status)

    load(mesh, ONE)
    client = threading.Thread(target=ask)
    client.start()
    try:
        for _ in range(5):
            for text in (ONE + NEW, ONE):
                load(mesh, text)
    finally:
        stop.set()
        client.join()
    assert 200 in seen
    assert 404 not in seen
