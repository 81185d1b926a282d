"""One Envoy with the routes that ``routes.yaml`` is compiled to, for a workload and at a gateway.

The clusters' endpoints are small servers on the loopback device that answer with what they were
asked. Tests take the types of the fixture from here when they are checked, not when they run.
"""

from __future__ import annotations

import http.client
import http.server
import json
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import envoy
import msgspec
import pytest
import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.bootstrap.internal_listener.v3 import internal_listener_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from google.protobuf import json_format

from meshd.api.base import decode_scalar
from meshd.api.networking import DestinationRule, Gateway, VirtualService
from meshd.api.protocol import Protocol
from meshd.compile.envoy.assignments import load_assignment
from meshd.compile.envoy.chains import chain
from meshd.compile.envoy.clusters import cluster
from meshd.compile.envoy.dynamic_dns import http_filter
from meshd.compile.envoy.idempotence import FILTER, NOT_SENT, idempotence_filter
from meshd.compile.envoy.listeners import listener
from meshd.compile.envoy.routes import route_table as printed_routes
from meshd.compile.envoy.wellknown import (
    HOST_STATE,
    ONCE,
    SECRET_STATE,
    UNHASHED,
    extension,
    inspect_tls,
    packed,
    set_filter_state,
    socket_address,
    state_value,
)
from meshd.compile.gateway.ports import BoundServer
from meshd.compile.gateway.routes import gateway_route_table
from meshd.compile.http.delegation import delegated
from meshd.compile.http.mirroring import mirror_listener, mirror_upstream
from meshd.compile.http.routes import route_table
from meshd.compile.names import OutboundCluster, gateway_routes, parse_cluster
from meshd.compile.plan.chains import Chain
from meshd.compile.plan.tls import PLAIN
from meshd.compile.traffic.opaque import OpaqueRoute, opaque_routes
from meshd.compile.upstream.assignments import service_assignments
from meshd.compile.upstream.upstreams import black_hole, passthrough, service_upstreams
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.service import Endpoint, Port, Resolution, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from tests.waiting import PATIENCE

MANIFEST = Path(__file__).with_name("routes.yaml")
ENVOY = Path(envoy.__path__[0]) / "_bin" / "envoy"


class Seen(NamedTuple):
    backend: str
    method: str
    path: str
    headers: dict[str, str]
    body: str = ""


class _TakesHellos(socketserver.BaseRequestHandler):
    """Sees the first bytes of TLS, and says so in plain text."""

    def handle(self) -> None:
        first = self.request.recv(1)
        self.request.sendall(b"hello" if first == b"\x16" else b"what?")


class Backends:
    """Servers that say who they are and what they were asked, and remember it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self.seen: list[Seen] = []
        self._servers = {
            name: http.server.ThreadingHTTPServer(
                (f"127.0.0.{number}", 0), self._handler(name), bind_and_activate=True
            )
            for number, name in enumerate(names, start=2)
        }
        # The names below "localhost" are those of 127.0.0.1.
        self._servers["local"] = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), self._handler("local")
        )
        self._hello = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _TakesHellos)
        self.hello_port = int(self._hello.server_address[1])
        for server in (*self._servers.values(), self._hello):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def address(self, name: str) -> tuple[str, int]:
        host, port = self._servers[name].server_address[:2]
        return str(host), int(port)

    def record(self, seen: Seen) -> int:
        with self._lock:
            self.seen.append(seen)
            return sum(known.path == seen.path for known in self.seen)

    def requests(self, path: str) -> list[Seen]:
        with self._lock:
            return [seen for seen in self.seen if seen.path == path]

    def wait_for(self, path: str, count: int) -> list[Seen]:
        """The requests for a path, once there are so many."""
        return _eventually(
            lambda: len(found := self.requests(path)) >= count and found,
        )

    def close(self) -> None:
        for server in (*self._servers.values(), self._hello):
            server.shutdown()
            server.server_close()

    def _handler(self, name: str) -> type[http.server.BaseHTTPRequestHandler]:
        backends = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # each answer in one piece, or the kernel waits for acknowledgements

            def parse_request(self) -> bool:
                self.announced = ""
                if self.raw_requestline.startswith(b"PROXY "):
                    self.announced = self.raw_requestline.decode().strip()
                    self.raw_requestline = self.rfile.readline()
                return super().parse_request()

            def do_CONNECT(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(f"on the way to {self.path}".encode())
                self.close_connection = True

            def _answer(self) -> None:
                received = self._body()
                headers = {
                    key.lower(): ",".join(self.headers.get_all(key, [])) for key in self.headers
                }
                if self.announced:
                    headers["announced"] = self.announced
                seen = Seen(name, self.command, self.path, headers, received)
                count = backends.record(seen)
                body = json.dumps(seen._asdict()).encode()
                failing = count < int(headers.get("x-after", 1000))
                if failing and "x-sleep" in headers:
                    time.sleep(float(headers["x-sleep"]))  # this is a slow server's work
                if failing and "x-hang-up" in headers:
                    self.close_connection = True
                    return
                status = int(headers.get("x-status", 200)) if failing else 200
                if headers.get("x-fail-on") == name:
                    status = 500
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("x-secret", "from the server")
                if failing and "x-unsent" in headers:
                    self.send_header(NOT_SENT, "true")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def _body(self) -> str:
                if "transfer-encoding" not in self.headers:
                    length = int(self.headers.get("content-length") or 0)
                    return self.rfile.read(length).decode()
                received = b""
                while length := int(self.rfile.readline(), 16):
                    received += self.rfile.read(length)
                    self.rfile.readline()
                self.rfile.readline()
                return received.decode()

            do_GET = do_HEAD = do_OPTIONS = do_TRACE = _answer  # noqa: N815
            do_PUT = do_POST = do_PATCH = do_DELETE = do_PROPFIND = _answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Not on the test's output."""

        return Handler


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def echo(self) -> Seen:
        return Seen(**json.loads(self.body))


class Proxy(NamedTuple):
    client_port: int
    nobody_port: int
    """As that of a client, of whom it is not known who it is."""
    gateway_port: int
    tcp_ports: dict[str, int]
    """By the service that connections to them are for."""
    admin: Path
    backends: Backends
    log: Path

    def counter(self, name: str) -> int:
        """0 for what the proxy has not counted yet."""
        values = _ask_admin(self.admin, f"/stats?filter=^{name}$")
        return int(values.rpartition(b":")[2] or 0)

    def eventually(self, condition: Callable[[], bool]) -> None:
        _eventually(condition)

    def call(self, host: str, path: str = "/", method: str = "GET", **headers: str) -> Reply:
        """As a workload; an underscore in a header's name stands for a hyphen."""
        return _request(self.client_port, host, path, method, headers)

    def stream(
        self, host: str, path: str, method: str, body: Iterable[bytes], **headers: str
    ) -> Reply:
        """As a workload that does not say how long the body is."""
        return _request(self.client_port, host, path, method, headers, body=body)

    def call_as_nobody(self, host: str, path: str, **headers: str) -> Reply:
        return _request(self.nobody_port, host, path, "GET", headers)

    def call_from(self, source: str, host: str) -> Reply:
        """As a workload with this address."""
        return _request(self.client_port, host, "/", "GET", {}, source)

    def call_tcp(self, service: str, source: str = "127.0.0.1") -> Reply:
        """HTTP through a port on which the proxy does not know that it is HTTP."""
        return _request(self.tcp_ports[service], service, "/", "GET", {}, source)

    def call_gateway(self, host: str, path: str = "/") -> Reply:
        """As a client outside the mesh."""
        return _request(self.gateway_port, host, path, "GET", {})


def _request(
    port: int,
    host: str,
    path: str,
    method: str,
    headers: dict[str, str],
    source: str = "",
    *,
    body: Iterable[bytes] | None = None,
) -> Reply:
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=PATIENCE, source_address=(source, 0) if source else None
    )
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, {"host": host, **named})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())
    finally:
        connection.close()


def _objects(kind: type[Any]) -> tuple[Any, ...]:
    return tuple(
        msgspec.convert(document, kind, dec_hook=decode_scalar)
        for document in yaml.safe_load_all(MANIFEST.read_text())
        if document["kind"] == kind.KIND
    )


LOCALITIES = {"v1": "us/a", "v2": "us/b", "v3": "eu/c"}
"""Where the servers are; the client is with v1."""


def _service(name: str, backends: Backends, places: dict[str, str]) -> ServiceRecord:
    return ServiceRecord(
        host=f"{name}.default.svc.cluster.local",
        namespace="default",
        name=name,
        ports=(Port(80, "http", Protocol.HTTP),),
        endpoints=tuple(
            Endpoint(
                address=backends.address(place)[0],
                port=backends.address(place)[1],
                service_port=80,
                labels={"version": version},
                locality=LOCALITIES[place],
            )
            for place, version in places.items()
        ),
    )


def _tcp_service(name: str, backends: Backends, places: dict[str, str]) -> ServiceRecord:
    """The same servers, on a port of which nobody says that they speak HTTP."""
    return msgspec.structs.replace(
        _service(name, backends, places),
        ports=(Port(80, "tcp", Protocol.TCP),),
        addresses=("198.19.0.1",),
    )


def _with_one_that_refuses(service: ServiceRecord) -> ServiceRecord:
    (endpoint,) = service.endpoints
    dead = msgspec.structs.replace(endpoint, address="127.0.0.9", port=1)
    return msgspec.structs.replace(service, endpoints=(endpoint, dead))


def _snapshot(backends: Backends) -> Snapshot:
    everywhere = {"v1": "v1", "v2": "v2", "v3": "v3"}
    names = ("reviews", "sticky", "fragile", "near", "shared", "thrifty")
    services = (
        *(_service(name, backends, everywhere) for name in names),
        _service("narrow", backends, {"v1": "v1"}),
        msgspec.structs.replace(_service("loyal", backends, everywhere), sticky=True),
        msgspec.structs.replace(_tcp_service("loyal-tcp", backends, everywhere), sticky=True),
        _tcp_service("tunnel", backends, {"v1": "v1"}),
        _tcp_service("announced", backends, {"v1": "v1"}),
        _with_one_that_refuses(_tcp_service("halved", backends, {"v1": "v1"})),
        ServiceRecord(
            host="*.localhost",
            namespace="default",
            ports=(
                Port(80, "http", Protocol.HTTP),
                Port(backends.hello_port, "tls", Protocol.TLS),
            ),
            resolution=Resolution.DYNAMIC_DNS,
            external=True,
        ),
    )
    return delegated(
        Snapshot(
            options=MeshOptions(outbound_policy="REGISTRY_ONLY", locality="us/a"),
            services={service.host: service for service in services},
            virtual_services=_objects(VirtualService),
            destination_rules=_objects(DestinationRule),
        )
    )


def _static_clusters(index: MeshIndex, scope: Scope) -> Iterator[Any]:
    """As compiled, but with the endpoints inside and opened from here."""
    for service in index.services.values():
        rules = index.rules.rules(service, scope)
        assignments = service_assignments(service, rules)
        for upstream in service_upstreams(service, rules, index.options):
            made = cluster(msgspec.structs.replace(upstream, tls=PLAIN))
            made.ClearField("upstream_bind_config")
            if made.HasField("cluster_type"):
                yield made
                continue
            assignment = load_assignment(assignments[made.eds_cluster_config.service_name])
            made.ClearField("eds_cluster_config")
            made.type = made.STATIC
            assignment.cluster_name = made.name
            made.load_assignment.CopyFrom(assignment)
            yield made
    yield cluster(black_hole(index.options))
    yield cluster(passthrough(index.options))


def _tcp_listeners(view: View) -> Iterator[Any]:
    for route in opaque_routes(view):
        cluster = parse_cluster(route.clusters[0][0])
        assert isinstance(cluster, OutboundCluster)
        yield listener_pb2.Listener(
            name=f"tcp {cluster.host.partition('.')[0]}",
            address=socket_address("127.0.0.1", 0),
            listener_filters=[inspect_tls()] if route.server_names else [],
            filter_chains=[_tcp_chain(route)],
        )


def _tcp_chain(route: OpaqueRoute) -> Any:
    made = listener_components_pb2.FilterChain()
    made.CopyFrom(chain(Chain(name=route.target.name, target=route.target.tcp("off"))))
    made.filter_chain_match.server_names.extend(route.server_names)
    return made


def _listener(name: str, routes: Any, *identified: Any) -> Any:
    filters = {
        "envoy.filters.http.cors": cors_pb2.Cors(),
        "envoy.filters.http.fault": fault_pb2.HTTPFault(),
        FILTER: idempotence_filter(),
        "envoy.filters.http.router": router_pb2.Router(),
    }
    manager = manager_pb2.HttpConnectionManager(
        stat_prefix=name,
        route_config=routes,
        http_filters=[
            http_filter(),
            *(
                manager_pb2.HttpFilter(name=filter_name, typed_config=packed(config))
                for filter_name, config in filters.items()
            ),
        ],
    )
    requests = listener_components_pb2.FilterChain(
        filters=[
            *identified,
            listener_components_pb2.Filter(
                name="envoy.filters.network.http_connection_manager", typed_config=packed(manager)
            ),
        ]
    )
    return listener_pb2.Listener(
        name=name, address=socket_address("127.0.0.1", 0), filter_chains=[requests]
    )


def _of_host() -> Any:
    """Connections are those of a service of the host."""
    return set_filter_state(
        state_value(SECRET_STATE, "spiffe://cluster.local/ns/default/sa/client", ONCE),
        state_value(HOST_STATE, "true", ONCE, factory=UNHASHED),
    )


def _bootstrap(snapshot: Snapshot) -> Any:
    index = MeshIndex.of(snapshot)
    view = View.of(index, Scope("default", (("app", "client"),)))
    (gateway,) = _objects(Gateway)
    servers = [BoundServer(gateway, server) for server in gateway.spec.servers]
    edge = printed_routes(gateway_route_table(view, gateway_routes(80, "edge"), 80, servers))
    return bootstrap_pb2.Bootstrap(
        node={"id": "routes", "cluster": "routes"},
        admin={"address": socket_address("127.0.0.1", 0)},
        bootstrap_extensions=[
            extension("envoy.bootstrap.internal_listener", internal_listener_pb2.InternalListener())
        ],
        layered_runtime={
            "layers": [
                {
                    "name": "static",
                    "static_layer": {"re2.max_program_size.error_level": 32768},
                }
            ]
        },
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            listeners=[
                _listener("client", printed_routes(route_table(view, 80)), _of_host()),
                _listener("nobody", printed_routes(route_table(view, 80))),
                _listener("gateway", edge, _of_host()),
                listener(mirror_listener(snapshot.options)),
                *_tcp_listeners(view),
            ],
            clusters=[*_static_clusters(index, view.scope), cluster(mirror_upstream())],
        ),
    )


def _eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.02)


def _ask_admin(admin: Path, path: str) -> bytes:
    host, _, port = admin.read_text().strip().rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _listener_ports(admin: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, int]:
    assert process.poll() is None, log.read_text()
    if not admin.exists() or ":" not in admin.read_text():
        return {}
    try:
        listed = json.loads(_ask_admin(admin, "/listeners?format=json"))
    except ConnectionError:
        return {}
    return {
        status["name"]: status["local_address"]["socket_address"]["port_value"]
        for status in listed.get("listener_statuses", [])
        if "socket_address" in status["local_address"]
    }


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("routes")
    backends = Backends(("v1", "v2", "v3"))
    config, admin, log = (directory / name for name in ("envoy.json", "admin", "envoy.log"))
    config.write_text(json_format.MessageToJson(_bootstrap(_snapshot(backends))))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(ENVOY),
                *("--config-path", str(config), "--admin-address-path", str(admin)),
                *("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        ports = _eventually(
            lambda: len(found := _listener_ports(admin, process, log)) == 8 and found
        )
        tcp = {
            name.removeprefix("tcp "): port
            for name, port in ports.items()
            if name.startswith("tcp ")
        }
        yield Proxy(ports["client"], ports["nobody"], ports["gateway"], tcp, admin, backends, log)
    finally:
        process.kill()
        process.wait(PATIENCE)
        backends.close()
