"""A service whose DestinationRule is not in force is refused, also where its address answers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from meshd.api.base import ObjectMeta
from meshd.api.destination_rule.types import DestinationRuleSpec
from meshd.capture.rules import inside
from meshd.model.closed_rule import ClosedRule
from tests.envoy.captured.place import Backend, Place, eventually

DB, WEB = Backend("db", {}), Backend("web", {80: "http"})
PORTS = (80, 9000, 9001, 7000)
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\ndb"


class Server:
    """Answers on all ports of an address, and remembers what it was told."""

    def __init__(self, netns: str, address: str) -> None:
        self.heard: list[bytes] = []
        with inside.entered(Path(netns)):
            self._sockets = [socket.create_server((address, port)) for port in PORTS]
        self._threads = [
            threading.Thread(target=self._serve, args=(listening,)) for listening in self._sockets
        ]
        for thread in self._threads:
            thread.start()

    def _serve(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # when it is shut down
            while True:
                accepted, _ = listening.accept()
                with accepted, contextlib.suppress(OSError):
                    self.heard.append(accepted.recv(65536))
                    accepted.sendall(_ANSWER)

    def close(self) -> None:
        for listening in self._sockets:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for thread in self._threads:
            thread.join()


SERVICES = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: db, namespace: apps}}
spec:
  hosts: [db.test]
  addresses: [{DB.address}]
  resolution: STATIC
  ports:
  - {{number: 80, name: http, protocol: HTTP}}
  - {{number: 9000, name: tcp, protocol: TCP}}
  - {{number: 7000, name: any}}
  endpoints: [{{address: {DB.address}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: headless, namespace: apps}}
spec: {{clusterIP: None, selector: {{app: headless}}, ports: [{{name: tcp, port: 9001}}]}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: web, namespace: apps}}
spec:
  hosts: [web.test]
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: {WEB.address}}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: edges}}
spec:
  selector: {{istio: edge}}
  servers: [{{port: {{number: 8080, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: routed, namespace: apps}}
spec:
  hosts: [routed.test]
  gateways: [mesh, edges/edge]
  http: [{{route: [{{destination: {{host: db.test, port: {{number: 80}}}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: copied, namespace: apps}}
spec:
  hosts: [copied.test]
  http:
  - route: [{{destination: {{host: web.test}}}}]
    mirror: {{host: db.test, port: {{number: 80}}}}
"""


def rule(host: str) -> ClosedRule:
    meta = ObjectMeta(name=host.partition(".")[0], namespace="apps")
    return ClosedRule(metadata=meta, spec=DestinationRuleSpec(host=host))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Place(tmp_path_factory.mktemp("closed"), (DB, WEB)) as made:
        yield made


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    made = Server(place.netns, DB.address)
    yield made
    made.close()


def load(place: Place, *rules: ClosedRule) -> None:
    headless = place.workload("headless", "apps")
    place.load(
        SERVICES,
        place.workload("edge", "edges", istio="edge"),
        msgspec.structs.replace(headless, addresses=(DB.address,), enrolled=False),
        serving=["edges.edge"],
        standing=rules,
    )


def answers(place: Place) -> dict[str, str]:
    """What a client gets, by the way on which it asks."""
    ask = place.ask
    return {
        "by host": ask("http", DB.address, 80, "db.test"),
        "by address": ask("http", DB.address, 80, DB.address),
        "tcp": ask("tcp after client", DB.address, 9000),
        "undeclared http": ask("http", DB.address, 7000, "db.test"),
        "undeclared tcp": ask("tcp after client", DB.address, 7000),
        "endpoint of a headless service": ask("tcp after client", DB.address, 9001),
        "routed": ask("http", WEB.address, 80, "routed.test"),
        "through a gateway": place.ask_gateway("http", 8080, "routed.test"),
    }


def test_a_closed_service_hears_nothing_and_others_are_served(place: Place, server: Server) -> None:
    load(place)
    assert all(answers(place).values()), answers(place)
    before = len(server.heard)
    assert place.ask("http", WEB.address, 80, "copied.test") == "web"
    eventually(lambda: len(server.heard) > before, "a copy of a request reaches the server")
    load(place, rule("db.test"), rule("headless.apps.svc.cluster.local"))
    server.heard.clear()
    assert not any(answers(place).values()), answers(place)
    assert place.ask("http", WEB.address, 80, "copied.test") == "web"
    assert server.heard == []
