"""Requests that reach an application of this node straight are what they are when they are read a
second time, and nobody comes that way with anything else."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions
from meshd.proxy.admin import Admin
from tests.envoy.between import http2
from tests.envoy.between.application import Application
from tests.envoy.between.conftest import MANIFEST
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import BRIDGE, Mesh, answer, headers, uri_of
from tests.envoy.captured.place import eventually

NAMES = ("client", "other", "server")
FORGED = "x-forwarded-client-cert: By=a;URI=spiffe://cluster.local/ns/default/sa/king"
SEVERAL, RAW = "198.19.77.20", "198.19.77.21"
MORE = f"""
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: several, namespace: servers}}
spec:
  hosts: [several.test]
  addresses: [{SEVERAL}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{part: several}}}}
  ports:
  - {{number: 8080, name: http, protocol: HTTP}}
  - {{number: 8082, name: http-other, protocol: HTTP}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: plain, namespace: servers}}
spec: {{address: {BRIDGE}, labels: {{part: several, security.istio.io/tlsMode: disabled}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: several, namespace: servers}}
spec:
  hosts: [several.test]
  http:
  - match: [{{port: 8080}}]
    retries: {{attempts: 3, retryOn: "5xx"}}
    route: [{{destination: {{host: several.test, port: {{number: 8080}}}}}}]
  - route: [{{destination: {{host: several.test, port: {{number: 8082}}}}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: raw, namespace: clients}}
spec:
  hosts: [raw.test]
  addresses: [{RAW}]
  resolution: NONE
  ports: [{{number: 9000, name: tcp, protocol: TCP}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: raw, namespace: clients}}
spec:
  hosts: [raw.test]
  tcp: [{{route: [{{destination: {{host: server.test, port: {{number: 8080}}}}}}]}}]
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("straight"), NAMES) as made:
        load(made)
        for name in NAMES:
            made.capture(name)
        yield made


@pytest.fixture(scope="module")
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080, 7000), (9000,))
    yield made
    made.close()


def load(mesh: Mesh, more: str = MORE, *, on: bool = True) -> None:
    workloads = [
        mesh.workload(name, **({"part": "several"} if name == "server" else {})) for name in NAMES
    ]
    mesh.load(
        MANIFEST + more,
        *workloads,
        options=MeshOptions(short_way=on),
        short_way=ShortWay(
            tuple(uri_of(name) for name in NAMES),
            tuple(one.uid for one in workloads),
        ),
    )


def read_twice(mesh: Mesh, port: int = 8080) -> int:
    """How many requests the server's side has read."""
    name = f"http.inbound_{port}.downstream_rq_total"
    return asyncio.run(Admin(mesh.admin).stats(f"^{name}$")).get(name, 0)


def certificates(head: str) -> list[str]:
    return headers(head).get("x-forwarded-client-cert", [])


def ask(mesh: Mesh, *lines: str, client: str = "client", address: str = ADDRESS) -> str:
    return mesh.hosts[client].ask(address, 8080, "\n".join(lines)).body


def test_a_request_is_read_once_and_names_its_caller(mesh: Mesh, application: Application) -> None:
    load(mesh)
    before, peers = read_twice(mesh), len(application.peers)
    for name in ("client", "other", "client", "server"):
        seen = ask(mesh, "GET / HTTP/1.1", "host: server.test", FORGED, FORGED, client=name)
        assert certificates(seen) == [f"By={uri_of('server')};URI={uri_of(name)}"]
    assert read_twice(mesh) == before
    assert set(application.peers[peers:]) <= {host.address for host in mesh.hosts.values()}


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize(
    "lines",
    [
        ("GET /a HTTP/1.1", "host: SERVER.test."),
        ("GET /x/../a//b?c=/../d HTTP/1.1", "host: server.test", "x-envoy-retry-on: 5xx"),
        (
            "POST /b HTTP/1.1",
            "host: server.test",
            "content-length: 0",
            "x_forwarded_client_cert: a",
        ),
        ("GET /c HTTP/1.1", "host: server.test", "x-forwarded-for: 10.0.0.1", "te: trailers"),
        ("GET /d HTTP/1.1", "host: server.test", "x-request-id: mine", "x-b3-traceid: theirs"),
        ("GET /e HTTP/1.1", "host: server.test", "x-envoy-upstream-rq-timeout-ms: 1"),
        ("GET /f HTTP/1.1", "host: server.test", "x-forwarded-proto: https", "via: a"),
    ],
)
def test_an_application_sees_the_request_that_it_sees_over_the_network(
    mesh: Mesh, lines: tuple[str, ...]
) -> None:
    seen: list[tuple[str, dict[str, list[str]]]] = []
    for on in (True, False):
        load(mesh, on=on)
        head = ask(mesh, *lines)
        found = {**headers(head)}
        (certificate,) = found.pop("x-forwarded-client-cert")
        assert certificate.endswith(f"URI={uri_of('client')}")
        if "x-request-id: mine" not in lines:
            assert found.pop("x-request-id")
        seen.append((head.splitlines()[0], found))
    assert seen[0] == seen[1]


@pytest.mark.usefixtures("application")
def test_answers_are_those_over_the_network(mesh: Mesh) -> None:
    """Also for an application that closes the connection, or that nobody listens for."""
    asked = [("GET", "/", 8080), ("POST", "/503/a", 8080), ("POST", "/close/a", 8080)]
    seen: list[list[tuple[int, str | None, str | None]]] = []
    for on in (True, False):
        load(mesh, on=on)
        given = [
            mesh.hosts["client"].ask(
                ADDRESS, port, f"{method} {path} HTTP/1.1\nhost: server.test\ncontent-length: 0"
            )
            for method, path, port in (*asked, ("POST", "/", 8081))
        ]
        seen.append(
            [
                (one.status, one.headers.get("server"), one.headers.get("x-meshd-not-sent"))
                for one in given
            ]
        )
    assert seen[0] == seen[1]


def test_each_attempt_says_who_calls_to_those_alone_who_are_to_know(
    mesh: Mesh, application: Application
) -> None:
    """One endpoint is reached straight, one by nobody's identity, over the network."""
    load(mesh)
    plain = Application(mesh.outside.netns, (8080,), ())
    places = {"plain": plain, "server": application}
    try:
        for _ in range(20):
            path = f"/503/{uuid.uuid4()}"
            given = mesh.hosts["client"].ask(
                SEVERAL, 8080, f"GET {path} HTTP/1.1\nhost: several.test\n{FORGED}"
            )
            assert given.status == 503
            for name, place in places.items():
                for head in place.heads:
                    if path in head:
                        named = f"By={uri_of(name)};URI={uri_of('client')}"
                        assert certificates(head) == ([] if name == "plain" else [named])
        assert all(any("/503/" in head for head in place.heads) for place in places.values())
    finally:
        plain.close()


def test_what_a_refusing_application_has_not_seen_goes_to_another_whatever_the_method(
    mesh: Mesh,
) -> None:
    load(mesh)
    made = Application(mesh.outside.netns, (8082,), ())
    try:
        statuses = {
            mesh.hosts["client"]
            .ask(SEVERAL, 8082, "POST / HTTP/1.1\nhost: several.test\ncontent-length: 0")
            .status
            for _ in range(30)
        }
        assert statuses == {200}
    finally:
        made.close()


@pytest.mark.usefixtures("application")
def test_bytes_that_no_proxy_has_read_do_not_come_straight(mesh: Mesh) -> None:
    """A TCP route leads to the port of requests, and the client writes its own name."""
    load(mesh)
    before = read_twice(mesh)
    with mesh.hosts["client"].connect(RAW, 9000) as connection:
        seen = answer(connection, f"GET / HTTP/1.1\nhost: server.test\n{FORGED}").body
    assert [one.rpartition("URI=")[2] for one in certificates(seen)] == [uri_of("client")]
    assert read_twice(mesh) == before + 1


@pytest.mark.parametrize("h2", [False, True])
def test_an_upgraded_connection_begins_with_the_callers_name(
    mesh: Mesh, application: Application, h2: bool
) -> None:
    load(mesh)
    path = f"/ws/{uuid.uuid4()}"
    upgraded = f"GET {path} HTTP/1.1\r\nhost: server.test\r\nconnection: upgrade\r\n"
    upgraded += f"upgrade: websocket\r\n{FORGED}\r\n\r\n"
    extended = http2.request(
        path.encode(),
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b"x-forwarded-client-cert", FORGED.encode()),
    )
    with mesh.hosts["client"].connect(ADDRESS, 8080) as connection:
        connection.sendall(extended if h2 else upgraded.encode())
        if not h2:
            eventually(lambda: application.requests(path) > 0, "the application has the request")
        elif not connection.recv(65536):
            return
    found = [head for head in application.heads if path in head]
    named = [f"By={uri_of('server')};URI={uri_of('client')}"]
    assert [certificates(head) for head in found] == [named] * len(found)


@pytest.mark.usefixtures("application")
def test_an_application_of_another_version_is_reached_through_its_own_side(mesh: Mesh) -> None:
    rule = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server, namespace: servers}
spec: {host: server.test, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
"""
    load(mesh, MORE + rule)
    before = read_twice(mesh)
    seen = ask(mesh, "GET / HTTP/1.1", "host: server.test")
    assert [one.rpartition("URI=")[2] for one in certificates(seen)] == [uri_of("client")]
    assert read_twice(mesh) == before + 1


@pytest.mark.usefixtures("application")
def test_a_name_is_written_once_for_a_workload_whose_account_is_a_gateways(mesh: Mesh) -> None:
    gateway = """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: own, namespace: clients}
spec:
  selector: {app: client}
  servers: [{port: {number: 8099, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server, namespace: servers}
spec: {host: server.test, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
"""
    load(mesh, MORE + gateway)
    seen = ask(mesh, "GET / HTTP/1.1", "host: server.test", FORGED)
    assert [one.rpartition("URI=")[2] for one in certificates(seen)] == [uri_of("client")]
