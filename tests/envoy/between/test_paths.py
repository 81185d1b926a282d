"""A path or a host that is written in another way does not lead around a route.

The rules for paths are Istio's default ones (``pathNormalization: BASE``).
"""

from __future__ import annotations

import socket

import pytest

from tests.envoy.between.application import Application
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Mesh, answer, headers

pytestmark = pytest.mark.usefixtures("application")


def connection(mesh: Mesh, caller: str) -> socket.socket:
    if caller == "client":
        return mesh.hosts["client"].connect(ADDRESS, 8080)
    return mesh.outside.connect(mesh.hosts["gateway"].address, 80)


def status(mesh: Mesh, caller: str, path: str, host: str = "server.test") -> int:
    with connection(mesh, caller) as client:
        return answer(client, f"GET {path} HTTP/1.1\nhost: {host}").status


@pytest.mark.parametrize("caller", ["client", "stranger"])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/guarded", 403),
        ("/./guarded", 403),
        ("/%2e/guarded", 403),
        ("/x/../guarded", 403),
        ("/x/%2e%2e/guarded", 403),
        ("/x/.%2E/guarded", 403),
        ("/../../guarded", 403),
        ("/x/..;/guarded", 403),
        ("/x\\..\\guarded", 403),
        ("\\guarded", 400),
        ("/%67uarded", 403),
        ("/guarde%64/../guarded", 403),
        ("/guarded?x=/../y", 403),
        ("http://server.test/guarded", 403),
        ("http://server.test/x/../guarded", 403),
        ("/guarded#x", 400),
        ("/x#/../guarded", 400),
        ("/guarded%00", 400),
        ("guarded", 400),
        ("/x /guarded", 400),
    ],
)
def test_a_path_is_compared_in_its_normal_form(
    mesh: Mesh, caller: str, path: str, expected: int
) -> None:
    assert status(mesh, caller, path) == expected


@pytest.mark.parametrize("caller", ["client", "stranger"])
@pytest.mark.parametrize(
    "path",
    [
        "//guarded",
        "/%2fguarded",
        "/x%2f..%2fguarded",
        "/x%5c..%5cguarded",
        "/%252e/guarded",
        "/;x/guarded",
        "/Guarded",
    ],
)
def test_paths_that_differ_for_the_proxy_reach_the_application_unchanged(
    mesh: Mesh, application: Application, caller: str, path: str
) -> None:
    """The manual says so of each: an application may take it for the guarded path."""
    application.heads.clear()
    assert status(mesh, caller, path) == 200
    assert application.requests(path) == 1


@pytest.mark.parametrize(
    "host",
    [
        "guarded.test",
        "GUARDED.test",
        "guarded.test.",
        "guarded.test:80",
        "guarded.test:1",
        "guarded.test.:80",
    ],
)
def test_a_host_is_the_same_in_any_case_with_a_dot_or_a_port(mesh: Mesh, host: str) -> None:
    assert status(mesh, "stranger", "/", host) == 403


@pytest.mark.parametrize("target", ["http://guarded.test/", "http://x@guarded.test./"])
def test_the_host_of_an_absolute_target_counts_rather_than_the_header(
    mesh: Mesh, target: str
) -> None:
    assert status(mesh, "stranger", target) == 403


@pytest.mark.parametrize("hosts", [("guarded.test", "a.test"), ("a.test", "guarded.test")])
def test_the_application_sees_the_host_by_which_the_route_was_chosen(
    mesh: Mesh, hosts: tuple[str, str]
) -> None:
    with connection(mesh, "stranger") as client:
        seen = answer(client, "GET / HTTP/1.1\n" + "\n".join(f"host: {host}" for host in hosts))
    assert seen.status == 400 or headers(seen.body)["host"] == [",".join(hosts)]
