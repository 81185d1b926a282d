"""Copies of requests: the client, the service and what the copies go to are in three namespaces,
and the routes in a fourth. A copy is sent as the request itself is: by its client, in its name."""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.node.node import Node

ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: [real.shop.svc.cluster.local, shop.test]
  gateways: [mesh, front]
  http:
  - route: [{destination: {host: real.shop.svc.cluster.local, port: {number: 80}}}]
    MIRRORS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: default}
spec:
  selector: {istio: copying}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.test]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: local, namespace: default}
spec:
  hosts: [local.test]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: LOCAL}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}]
---
"""
PORTS = (("http-web", 80, 8080), ("any", 70, 8081))
URL = "http://real.shop/{}-[1-{}]"
LARGE = "head -c 3000000 /dev/zero | curl -sS --data-binary @- http://real.shop/large-1"
COPY = "{host: HOST.shade.svc.cluster.local, port: {number: PORT}}"


def copies_to(host: str, port: int = 80) -> str:
    return COPY.replace("HOST", host).replace("PORT", str(port))


class Shade:
    """Where copies go."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def kept(self, path: str, pod: str = "copy.shade") -> list[dict[str, Any]]:
        """What a pod has of requests whose paths begin so."""
        done = self.node.curl(pod, "http://127.0.0.1:8080/kept")
        return [one for one in json.loads(done.output) if one["path"].startswith(f"/{path}-")]

    def wait(self, path: str, count: int) -> list[dict[str, Any]]:
        self.node.eventually(
            lambda: len(self.kept(path)) >= count, f"{count} copies of {path} arrive"
        )
        assert len(self.kept(path)) == count
        return self.kept(path)

    def ask(self, client: str, path: str, count: int, *arguments: str) -> None:
        done = self.node.curl(client, "-f", *arguments, URL.format(path, count))
        assert done.output == "kept\n" * count, done.errors


@pytest.fixture(scope="module")
def shade(node: Node) -> Iterator[Shade]:
    write = node.write
    pods = [
        write.deployment("real", "shop", program="keeper.py", ready=8080),
        write.deployment("copy", "shade", program="keeper.py", ready=8080),
        write.deployment("front", "edge", labels={"istio": "copying"}),
    ]
    spaces = [write.namespace(name, enrolled=True) for name in ("shop", "shade", "edge")]
    services = [
        write.service("real", "shop", ports=PORTS),
        write.service("copy", "shade", ports=PORTS),
        write.service(
            "copy-bare", "shade", app="copy", headless=True, ports=(("http", 8080, 8080),)
        ),
    ]
    node.up(write.dump(*spaces, *pods, *services))
    yield Shade(node)
    node.up(write.dump(*(pod | {"spec": pod["spec"] | {"replicas": 0}} for pod in pods)))
    node.eventually(node.is_well, "all is well again")


def route(mirrors: str, local: int = 1) -> str:
    return ROUTE.replace("MIRRORS", mirrors).replace("LOCAL", str(local))


def names(copies: list[dict[str, Any]]) -> set[str]:
    return {
        one["headers"].get("x-forwarded-client-cert", "").partition("URI=")[2] for one in copies
    }


def test_every_copy_arrives_from_its_client_and_in_its_name(shade: Shade) -> None:
    """Whatever the client writes into the headers that the proxy uses."""
    forged = {
        "x-meshd-copy-identity": "spiffe://cluster.local/ns/shop/sa/real#client",
        "x-meshd-copy-netns": "/proc/1/ns/net",
        "x-meshd-copy-host": "true",
        "x-meshd-copy-to": "PassthroughCluster",
    }
    headers = [part for name, value in forged.items() for part in ("-H", f"{name}: {value}")]
    with shade.node.applied(route(f"mirror: {copies_to('copy')}")):
        for client in ("alice", "bob", "alice", "bob"):
            shade.ask(client, f"by-{client}", 15, *headers)
        for client in ("alice", "bob"):
            copies = shade.wait(f"by-{client}", 30)
            assert names(copies) == {f"spiffe://cluster.local/ns/mesh/sa/{client}"}
            assert {one["peer"] for one in copies} == {shade.node.pod(client).plan.address}
            assert not [name for one in copies for name in one["headers"] if "meshd" in name]
            assert {one["headers"]["host"] for one in copies} == {"real.shop-shadow"}


def test_bodies_are_copied(shade: Shade) -> None:
    with shade.node.applied(route(f"mirror: {copies_to('copy')}")):
        shade.ask("alice", "body", 5, "-d", "x" * 20_000)
        assert {one["body"] for one in shade.wait("body", 5)} == {20_000}
        done = shade.node.exec("alice", "sh", "-c", LARGE)
        assert done.output == "kept\n", done.errors
        assert [one["body"] for one in shade.kept("large", "real.shop")] == [3_000_000]
        assert [one["body"] for one in shade.wait("large", 1)] == [3_000_000]


def test_each_of_several_mirrors_has_its_share(shade: Shade) -> None:
    """Ports of a declared and of an undeclared protocol, and a service without an address."""
    mirrors = (
        f"- {{destination: {copies_to('copy')}, percentage: {{value: 100}}}}",
        f"- {{destination: {copies_to('copy', 70)}, percentage: {{value: 50}}}}",
        f"- {{destination: {copies_to('copy-bare', 8080)}, percentage: {{value: 0}}}}",
    )
    with shade.node.applied(route("mirrors:\n    " + "\n    ".join(mirrors))):
        shade.ask("alice", "some", 100)
        ports = lambda: [one["port"] for one in shade.kept("some")]  # noqa: E731
        shade.node.eventually(
            lambda: ports().count(8080) == 100 and 20 <= ports().count(8081) <= 80,
            "all of the first and half of the second arrive",
        )


@pytest.mark.parametrize(("host", "port"), [("copy", 70), ("copy-bare", 8080)])
def test_copies_go_to_services_of_every_kind(shade: Shade, host: str, port: int) -> None:
    with shade.node.applied(route(f"mirror: {copies_to(host, port)}")):
        shade.ask("alice", f"kind-{port}", 10)
        for _ in range(5):
            shade.ask("alice", f"kind-{port}-h2", 1, "--http2-prior-knowledge")
        assert len(shade.wait(f"kind-{port}", 15)) == 15


def test_a_gateways_copies_are_in_its_own_name(shade: Shade) -> None:
    address = shade.node.pod("front.edge").plan.address
    with shade.node.applied(
        route(f"mirror: {copies_to('copy')}\n    mirrorPercentage: {{value: 100}}")
    ):
        resolved = ("--connect-to", f"::{address}:80", "-H", "host: shop.test")
        shade.node.eventually(
            lambda: (
                shade.node.status_of("stranger.outside", "http://shop.test/x", *resolved) == "200"
            ),
            "the gateway answers",
        )
        shade.ask("stranger.outside", "edge", 20, *resolved)
        copies = shade.wait("edge", 20)
        assert names(copies) == {"spiffe://cluster.local/ns/edge/sa/front"}


def test_a_request_that_is_sent_again_is_still_its_clients(shade: Shade) -> None:
    with shade.node.applied(route("retries: {attempts: 2, retryOn: 5xx}")):
        shade.ask("alice", "once", 5)
        tries = shade.kept("once", "real.shop")
        assert len(tries) == 10
        assert names(tries) == {"spiffe://cluster.local/ns/mesh/sa/alice"}
        assert {one["peer"] for one in tries} == {shade.node.pod("alice").plan.address}


@contextlib.contextmanager
def listening() -> Generator[tuple[int, list[str]]]:
    """On the loopback device of the host: the port, and the paths that it is asked for."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        server.server_close()


def test_the_loopback_device_is_the_clients_own(shade: Shade) -> None:
    node = shade.node
    with listening() as (port, seen), node.applied(route("mirror: {host: local.test}", port)):
        argv, environment = node.command("alice", sys.executable, "/srv/app/keeper.py", str(port))
        beside = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
        try:
            kept = f"http://127.0.0.1:{port}/kept"
            node.eventually(lambda: node.curl("alice", kept).status == 0, "it listens")
            shade.ask("alice", "own", 10)
            node.eventually(
                lambda: node.curl("alice", kept).output.count("/own-") == 10, "all came"
            )
            shade.ask("bob", "nowhere", 10)
        finally:
            beside.kill()
            beside.wait()
        assert not seen
