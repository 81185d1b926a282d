# pyright: reportAttributeAccessIssue=false
"""What a real Envoy does with the routes that VirtualServices are compiled to.

One Envoy with one listener; the clusters' endpoints are small servers on the loopback device that
answer with what they were asked.
"""

from __future__ import annotations

import collections
import http.client
import http.server
import json
import math
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import envoy
import msgspec
import pytest
import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from google.protobuf import json_format

from meshd.compile.clusters import black_hole_cluster, passthrough_cluster, service_clusters
from meshd.compile.endpoints import service_assignments
from meshd.compile.gateway_ports import BoundServer
from meshd.compile.gateway_routes import gateway_route_configuration
from meshd.compile.names import gateway_routes
from meshd.compile.routes import route_configuration
from meshd.compile.scope import Scope
from meshd.compile.visibility import MeshIndex
from meshd.compile.wellknown import packed, socket_address
from meshd.model.base import decode_scalar
from meshd.model.service import Endpoint, Port, Protocol, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.traffic import DestinationRule, Gateway, VirtualService

MANIFEST = Path(__file__).with_name("routes.yaml")
ENVOY = Path(envoy.__path__[0]) / "_bin" / "envoy"
PATIENCE = 20.0
"""Seconds after which a condition that should come by itself counts as missed."""


class Seen(NamedTuple):
    backend: str
    method: str
    path: str
    headers: dict[str, str]


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
        for server in self._servers.values():
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

    def close(self) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def _handler(self, name: str) -> type[http.server.BaseHTTPRequestHandler]:
        backends = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # each answer in one piece, or the kernel waits for acknowledgements

            def _answer(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                self.rfile.read(length)
                headers = {
                    key.lower(): ",".join(self.headers.get_all(key, [])) for key in self.headers
                }
                seen = Seen(name, self.command, self.path, headers)
                count = backends.record(seen)
                body = json.dumps(seen._asdict()).encode()
                failing = count < int(headers.get("x-after", 1000))
                if failing and "x-sleep" in headers:
                    time.sleep(float(headers["x-sleep"]))  # this is a slow server's work
                status = int(headers.get("x-status", 200)) if failing else 200
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("x-secret", "from the server")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_OPTIONS = _answer  # noqa: N815

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
    gateway_port: int
    admin: Path
    backends: Backends
    log: Path

    def counter(self, name: str) -> int:
        values = _ask_admin(self.admin, f"/stats?filter=^{name}$")
        return int(values.rpartition(b":")[2])

    def call(self, host: str, path: str = "/", method: str = "GET", **headers: str) -> Reply:
        """As a workload; an underscore in a header's name stands for a hyphen."""
        return _request(self.client_port, host, path, method, headers)

    def call_gateway(self, host: str, path: str = "/") -> Reply:
        """As a client outside the mesh."""
        return _request(self.gateway_port, host, path, "GET", {})


def _request(port: int, host: str, path: str, method: str, headers: dict[str, str]) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, headers={"host": host, **named})
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
            )
            for place, version in places.items()
        ),
    )


def _snapshot(backends: Backends) -> Snapshot:
    services = (
        _service("reviews", backends, {"v1": "v1", "v2": "v2", "v3": "v3"}),
        _service("sticky", backends, {"v1": "v1", "v2": "v2", "v3": "v3"}),
    )
    return Snapshot(
        options=MeshOptions(outbound_policy="REGISTRY_ONLY"),
        services={service.host: service for service in services},
        virtual_services=_objects(VirtualService),
        destination_rules=_objects(DestinationRule),
    )


def _static_clusters(index: MeshIndex, scope: Scope) -> Iterator[Any]:
    """As compiled, but with the endpoints inside and opened from here."""
    for service in index.services.values():
        rules = index.rules.rules(service, scope)
        assignments = service_assignments(service, rules)
        for planned in service_clusters(service, rules, index.options):
            cluster = planned.cluster
            assignment = assignments[planned.name.endpoints]
            cluster.ClearField("upstream_bind_config")
            cluster.ClearField("eds_cluster_config")
            cluster.type = cluster.STATIC
            assignment.cluster_name = cluster.name
            cluster.load_assignment.CopyFrom(assignment)
            yield cluster
    yield black_hole_cluster(index.options)
    yield passthrough_cluster(index.options)


def _listener(name: str, routes: Any) -> Any:
    filters = {
        "envoy.filters.http.cors": cors_pb2.Cors(),
        "envoy.filters.http.fault": fault_pb2.HTTPFault(),
        "envoy.filters.http.router": router_pb2.Router(),
    }
    manager = manager_pb2.HttpConnectionManager(
        stat_prefix=name,
        route_config=routes,
        http_filters=[
            manager_pb2.HttpFilter(name=filter_name, typed_config=packed(config))
            for filter_name, config in filters.items()
        ],
    )
    chain = listener_components_pb2.FilterChain(
        filters=[
            listener_components_pb2.Filter(
                name="envoy.filters.network.http_connection_manager", typed_config=packed(manager)
            )
        ]
    )
    return listener_pb2.Listener(
        name=name, address=socket_address("127.0.0.1", 0), filter_chains=[chain]
    )


def _bootstrap(snapshot: Snapshot) -> Any:
    index = MeshIndex.of(snapshot)
    view = index.view(Scope("default", (("app", "client"),)))
    (gateway,) = _objects(Gateway)
    servers = [BoundServer(gateway, server) for server in gateway.spec.servers]
    edge = gateway_route_configuration(view, gateway_routes(80, "edge"), 80, servers)
    return bootstrap_pb2.Bootstrap(
        node={"id": "routes", "cluster": "routes"},
        admin={"address": socket_address("127.0.0.1", 0)},
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            listeners=[
                _listener("client", route_configuration(view, 80)),
                _listener("gateway", edge),
            ],
            clusters=list(_static_clusters(index, view.scope)),
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
            lambda: len(found := _listener_ports(admin, process, log)) == 2 and found
        )
        yield Proxy(ports["client"], ports["gateway"], admin, backends, log)
    finally:
        process.kill()
        process.wait(PATIENCE)
        backends.close()


@pytest.mark.parametrize(
    ("host", "path", "request_headers", "backend"),
    [
        ("exact.test", "/a", {}, "v2"),
        ("exact.test", "/a?x=1", {}, "v2"),
        ("exact.test", "/a/b", {}, "v1"),
        ("exact.test:9999", "/a", {}, "v2"),
        ("EXACT.test", "/a", {}, "v2"),
        ("prefix.test", "/abc", {}, "v2"),
        ("prefix.test", "/A", {}, "v1"),
        ("regex.test", "/a/12", {}, "v2"),
        ("regex.test", "/a/12/x", {}, "v1"),
        ("case.test", "/uP/x", {}, "v2"),
        ("case.test", "/down", {}, "v1"),
        ("beta.authority.test", "/", {}, "v2"),
        ("alpha.authority.test", "/", {}, "v1"),
        ("scheme.test", "/", {}, "v2"),
        ("header.test", "/", {"end_user": "john"}, "v2"),
        ("header.test", "/", {"end_user": "mary"}, "v2"),
        ("header.test", "/", {"end_user": "xzy"}, "v2"),
        ("header.test", "/", {"end_user": "peter"}, "v1"),
        ("header.test", "/", {}, "v1"),
        ("present.test", "/", {"x_beta": "anything"}, "v2"),
        ("present.test", "/", {}, "v1"),
        ("without.test", "/", {"end_user": "john"}, "v1"),
        ("without.test", "/", {"end_user": "mary"}, "v2"),
        ("without.test", "/", {}, "v2"),
        ("without-any.test", "/", {"end_user": "mary"}, "v1"),
        ("without-any.test", "/", {}, "v2"),
        ("query.test", "/?q=yes&n=12", {}, "v2"),
        ("query.test", "/?q=yes&n=a", {}, "v1"),
        ("query.test", "/?n=12", {}, "v1"),
        ("port.test", "/a", {}, "v1"),
        ("labels.test", "/", {}, "v1"),
        ("after-all.test", "/a", {}, "v1"),
        ("unknown-host.test", "/ok", {}, "v1"),
        ("reviews", "/", {}, None),
        ("reviews.default", "/", {}, None),
        ("reviews.default.svc.cluster.local", "/", {}, None),
    ],
)
def test_request_reaches_the_destination_of_the_first_route_that_matches(
    proxy: Proxy, host: str, path: str, request_headers: dict[str, str], backend: str | None
) -> None:
    reply = proxy.call(host, path, **request_headers)

    assert reply.status == 200
    assert reply.echo.backend in ({backend} if backend else {"v1", "v2", "v3"})


def test_method_is_matched(proxy: Proxy) -> None:
    assert proxy.call("method.test", method="PUT").echo.backend == "v2"
    assert proxy.call("method.test", method="GET").echo.backend == "v1"


def test_request_that_no_route_matches_is_answered_404(proxy: Proxy) -> None:
    assert proxy.call("none.test", "/other").status == 404


def test_host_outside_the_registry_is_refused_where_only_the_registry_counts(proxy: Proxy) -> None:
    assert proxy.call("stranger.test").status == 502


def test_weights_share_the_requests(proxy: Proxy) -> None:
    count = 800
    places = collections.Counter(proxy.call("weights.test").echo.backend for _ in range(count))

    # Six standard deviations of a binomial distribution: it fails once in a thousand million runs.
    tolerance = 6 * math.sqrt(count * 0.75 * 0.25)
    assert abs(places["v1"] - 0.75 * count) < tolerance
    assert places["v1"] + places["v2"] == count


def test_redirect_replaces_the_parts_that_are_named(proxy: Proxy) -> None:
    everything = proxy.call("redirect.test", "/all/x")
    port = proxy.call("redirect.test", "/port/x")
    path = proxy.call("redirect.test", "/anything")

    assert everything.status == 308
    assert everything.headers["location"] == "https://other.test:8443/new"
    assert (port.status, port.headers["location"]) == (301, "http://other.test:80/port/x")
    assert path.headers["location"] == "http://redirect.test/only"


def test_direct_response_is_given_by_the_proxy(proxy: Proxy) -> None:
    text = proxy.call("direct.test")

    assert (text.status, text.body) == (418, b"teapot")
    assert text.headers["x-kind"] == "stoneware"
    assert proxy.call("direct.test", "/bytes").body == b"hello"


@pytest.mark.parametrize(
    ("path", "arrived"),
    [
        ("/v1/old/book?q=1", "/new/book?q=1"),
        ("/exact", "/was-exact"),
        ("/r/some/thing?q=1", "/was-regex?q=1"),
        ("/service/books/list", "/list/of/books"),
    ],
)
def test_rewrite_replaces_what_matched(proxy: Proxy, path: str, arrived: str) -> None:
    assert proxy.call("rewrite.test", path).echo.path == arrived


def test_rewrite_replaces_the_authority(proxy: Proxy) -> None:
    assert proxy.call("rewrite.test", "/v1/old/a").echo.headers["host"] == "inner.test"
    assert proxy.call("rewrite.test", "/exact").echo.headers["host"] == "rewrite.test"


def test_timeout_ends_a_request_that_takes_longer(proxy: Proxy) -> None:
    assert proxy.call("timeout.test", "/timeout-slow", x_sleep="1.5").status == 504
    assert proxy.call("timeout.test", "/timeout-fast").status == 200


@pytest.mark.parametrize(
    ("host", "status", "attempts"),
    [
        ("retry-default.test", "503", 3),
        ("retry-default.test", "500", 1),
        ("retry-none.test", "503", 1),
        ("retry-codes.test", "418", 4),
        ("retry-codes.test", "503", 1),
        ("retry-empty.test", "503", 5),
    ],
)
def test_failed_request_is_tried_as_often_as_the_route_says(
    proxy: Proxy, host: str, status: str, attempts: int
) -> None:
    path = f"/{host}/{status}"

    assert proxy.call(host, path, x_status=status).status == int(status)
    tried = proxy.backends.requests(path)
    assert len(tried) == attempts
    assert [seen.headers["x-envoy-attempt-count"] for seen in tried] == [
        str(number) for number in range(1, attempts + 1)
    ]


def test_retry_that_succeeds_hides_the_failure(proxy: Proxy) -> None:
    path = "/recovers"

    assert proxy.call("retry-default.test", path, x_status="503", x_after="2").status == 200
    assert len(proxy.backends.requests(path)) == 2


def test_each_try_has_its_own_timeout(proxy: Proxy) -> None:
    path = "/second-is-fast"

    assert proxy.call("retry-try.test", path, x_sleep="1.5", x_after="2").status == 200
    assert len(proxy.backends.requests(path)) == 2


def test_delay_holds_a_request_back(proxy: Proxy) -> None:
    before = proxy.counter("http.client.fault.delays_injected")

    assert proxy.call("delay.test").status == 200
    assert proxy.counter("http.client.fault.delays_injected") == before + 1


def test_abort_answers_in_place_of_the_server(proxy: Proxy) -> None:
    assert proxy.call("abort.test", "/aborted", end_user="john").status == 555
    assert proxy.backends.requests("/aborted") == []


def test_fault_without_a_percentage_affects_nobody(proxy: Proxy) -> None:
    assert {proxy.call("abort.test").status for _ in range(20)} == {200}


def test_fault_affects_its_percentage_of_requests(proxy: Proxy) -> None:
    count = 500
    aborted = sum(proxy.call("abort-some.test").status == 429 for _ in range(count))

    assert abs(aborted - 0.3 * count) < 6 * math.sqrt(count * 0.3 * 0.7)


def test_abort_with_a_grpc_status_answers_as_grpc_does(proxy: Proxy) -> None:
    reply = proxy.call("abort-grpc.test", method="POST", content_type="application/grpc")

    assert (reply.status, reply.headers["grpc-status"]) == (200, "14")


def test_mirror_gets_a_copy_and_its_answer_is_dropped(proxy: Proxy) -> None:
    path = "/mirrored"

    assert proxy.call("mirror.test", path).echo.backend == "v1"
    _eventually(lambda: len(proxy.backends.requests(path)) == 2)
    copy = next(seen for seen in proxy.backends.requests(path) if seen.backend != "v1")
    assert (copy.backend, copy.headers["host"]) == ("v2", "mirror.test-shadow")


def test_header_operations_of_a_route_and_its_destination(proxy: Proxy) -> None:
    reply = proxy.call("headers.test", x_set="old", x_add="first", x_gone="here")

    assert reply.echo.headers["x-set"] == "100%"
    assert reply.echo.headers["x-place"] == "one"
    assert reply.echo.headers["host"] == "renamed.test"
    assert reply.echo.headers["x-add"] == "first,more"
    assert "x-gone" not in reply.echo.headers
    assert reply.headers["x-answer"] == "yes"
    assert "x-secret" not in reply.headers


def test_header_operations_of_each_weighted_destination(proxy: Proxy) -> None:
    replies = [proxy.call("weighted-headers.test") for _ in range(40)]

    assert {reply.headers["x-place"] for reply in replies} == {"v1", "v2"}
    assert {(reply.echo.backend, reply.echo.headers["host"]) for reply in replies} == {
        ("v1", "one.test"),
        ("v2", "weighted-headers.test"),
    }


def test_cors_preflight_is_answered_for_the_origins_that_are_allowed(proxy: Proxy) -> None:
    asked = {"access_control_request_method": "PUT"}
    good = proxy.call("cors.test", "/cors", method="OPTIONS", origin="https://good.test", **asked)
    bad = proxy.call("cors.test", "/bad", method="OPTIONS", origin="https://bad.test", **asked)
    simple = proxy.call("cors.test", "/simple", origin="https://a.fine.test")

    assert good.headers["access-control-allow-origin"] == "https://good.test"
    assert good.headers["access-control-allow-methods"] == "GET,PUT"
    assert good.headers["access-control-allow-headers"] == "x-token"
    assert good.headers["access-control-max-age"] == "3600"
    assert proxy.backends.requests("/cors") == []
    assert "access-control-allow-origin" not in bad.headers
    assert simple.headers["access-control-allow-origin"] == "https://a.fine.test"
    assert simple.headers["access-control-allow-credentials"] == "true"
    assert simple.headers["access-control-expose-headers"] == "x-answer"


@pytest.mark.parametrize("host", ["unknown-host.test", "unknown-subset.test"])
def test_destination_that_is_not_there_is_answered_503(proxy: Proxy, host: str) -> None:
    assert proxy.call(host).status == 503


def test_consistent_hash_keeps_a_user_on_one_endpoint(proxy: Proxy) -> None:
    places = {
        user: {proxy.call("hash.test", x_user=user).echo.backend for _ in range(5)}
        for user in map(str, range(24))
    }

    assert {len(seen) for seen in places.values()} == {1}
    assert len(set.union(*places.values())) > 1


def test_gateway_merges_virtual_services_and_puts_the_catch_all_last(proxy: Proxy) -> None:
    exact = proxy.call_gateway("gateway.test", "/productpage")
    other = proxy.call_gateway("gateway.test", "/anything")

    assert (exact.echo.backend, other.echo.backend) == ("v1", "v2")


def test_gateway_answers_404_to_hosts_that_it_does_not_serve(proxy: Proxy) -> None:
    assert proxy.call_gateway("elsewhere.test").status == 404


def test_gateway_sends_clear_text_requests_to_https(proxy: Proxy) -> None:
    reply = proxy.call_gateway("secure.test", "/a")

    assert (reply.status, reply.headers["location"]) == (301, "https://secure.test/a")


def test_envoy_finds_nothing_to_warn_about(proxy: Proxy) -> None:
    assert "deprecated" not in proxy.log.read_text().lower()
