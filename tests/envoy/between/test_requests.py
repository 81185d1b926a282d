"""A request is made once unless that is safe, and what the application has to say arrives."""

from __future__ import annotations

import uuid

import pytest

from tests.envoy.between.application import Application
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Mesh, answer, headers, uri_of

PORTS = [8080, 7000]


def ask(mesh: Mesh, port: int, method: str, path: str, *more: str) -> int:
    lines = (f"{method} {path} HTTP/1.1", "host: server.test", *more)
    return mesh.hosts["client"].ask(ADDRESS, port, "\n".join(lines)).status


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_applications_own_503_is_not_repeated(
    mesh: Mesh, application: Application, port: int, method: str
) -> None:
    path = f"/503/{uuid.uuid4()}"
    assert ask(mesh, port, method, path, "content-length: 0") == 503
    assert application.requests(path) == 1


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize(("method", "most"), [("POST", 1), ("PATCH", 1), ("GET", 9), ("PUT", 9)])
def test_requests_that_may_have_been_executed_are_repeated_only_if_idempotent(
    mesh: Mesh, application: Application, port: int, method: str, most: int
) -> None:
    path = f"/close/{uuid.uuid4()}"
    assert ask(mesh, port, method, path, "content-length: 0") == 503
    seen = application.requests(path)
    assert seen == 1 if most == 1 else 1 < seen <= most


def test_a_servers_proxy_says_to_its_clients_alone_that_it_could_not_connect(mesh: Mesh) -> None:
    request = "POST / HTTP/1.1\nhost: server.test\ncontent-length: 0"
    with mesh.holder("peer").wrap_socket(
        mesh.outside.connect(mesh.hosts["server"].address, 8081)
    ) as client:
        given = answer(client, request)
    assert (given.status, given.headers["x-meshd-not-sent"]) == (503, "true")
    seen = mesh.hosts["client"].ask(ADDRESS, 8081, request)
    assert (seen.status, "x-meshd-not-sent" in seen.headers) == (503, False)


@pytest.mark.parametrize(
    "control",
    ["x-envoy-retry-on: 5xx", "x-envoy-retriable-status-codes: 503", "x-envoy-max-retries: 5"],
)
@pytest.mark.parametrize("claimed", ["x-a: b", "x-forwarded-for: 10.0.0.1"])
def test_a_client_does_not_control_the_proxies_by_headers(
    mesh: Mesh, application: Application, control: str, claimed: str
) -> None:
    path = f"/503/{uuid.uuid4()}"
    more = (control, "x-envoy-retry-on: 5xx,retriable-status-codes", claimed)
    assert ask(mesh, 8080, "GET", path, *more) == 503
    assert application.requests(path) == 1
    seen = next(head for head in application.heads if path in head)
    assert not {"x-envoy-retry-on", "x-envoy-max-retries"} & set(headers(seen))


@pytest.mark.parametrize("port", PORTS)
def test_an_application_may_refuse_before_the_body(
    mesh: Mesh, application: Application, port: int
) -> None:
    more = ("expect: 100-continue", "content-length: 1000000")
    path = f"/refuse/{uuid.uuid4()}"
    assert ask(mesh, port, "POST", path, *more) == 417
    assert application.requests(path) == 1


@pytest.mark.parametrize("host", ["host: server.test", "x-no: host"])
@pytest.mark.parametrize("caller", ["client", "outside"])
def test_http_1_0_passes_on_an_undeclared_port_with_the_callers_name(
    mesh: Mesh, application: Application, caller: str, host: str
) -> None:
    del application
    source, address = mesh.outside, mesh.hosts["server"].address
    if caller == "client":
        source, address = mesh.hosts["client"], ADDRESS
    forged = f"x-forwarded-client-cert: By=a;URI={uri_of('king')}"
    with source.connect(address, 7000) as client:
        given = answer(client, f"GET / HTTP/1.0\n{host}\n{forged}")
    assert given.status == 200
    named = headers(given.body).get("x-forwarded-client-cert", [])
    assert len(named) == (caller == "client")
    assert all(one.endswith(f"URI={uri_of('client')}") for one in named)


def test_http_1_0_is_refused_on_a_port_declared_http(mesh: Mesh) -> None:
    request = "GET / HTTP/1.0\nhost: server.test"
    assert mesh.hosts["client"].ask(ADDRESS, 8080, request).status == 426
