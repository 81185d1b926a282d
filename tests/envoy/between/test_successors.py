"""A workload that comes to an address of this node gets nothing that was meant for the one before:
Envoy keeps connections to an endpoint for as long as it takes it for the same."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from meshd.model.snapshot import MeshOptions
from tests.envoy.between.application import Application
from tests.envoy.between.conftest import MANIFEST
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Mesh, answer, headers, uri_of
from tests.envoy.captured.place import run

NAMES = ("client", "server", "second")
_GREETING = "GET /{} HTTP/1.1\nhost: server.test"


@pytest.mark.parametrize("port", [8080, 7000])
def test_a_workload_that_gets_anothers_address_gets_its_own_connections(
    tmp_path: Path, port: int
) -> None:
    """The one before still runs, and its end of the pooled connections is open."""
    with Mesh(tmp_path, NAMES) as mesh:
        load(mesh, "server")
        for name in NAMES:
            mesh.capture(name)
        places = {
            name: Application(mesh.hosts[name].netns, (8080, 7000), ())
            for name in ("server", "second")
        }
        try:
            with mesh.hosts["client"].connect(ADDRESS, port) as connection:
                seen = answer(connection, _GREETING.format("before"))
                assert called(seen.body) == uri_of("server")
                move(mesh)
                load(mesh, "second")
                seen = answer(connection, _GREETING.format("after"))
                assert called(seen.body) == uri_of("second")
            assert [place.requests("/after") for place in places.values()] == [0, 1]
        finally:
            for place in places.values():
                place.close()


def test_a_workload_that_has_another_account_by_now_gets_connections_in_its_name(
    tmp_path: Path,
) -> None:
    with Mesh(tmp_path, NAMES) as mesh:
        load(mesh, "server")
        for name in ("client", "server"):
            mesh.capture(name)
        place = Application(mesh.hosts["server"].netns, (8080, 7000), ())
        try:
            with mesh.hosts["client"].connect(ADDRESS, 7000) as connection:
                assert called(answer(connection, _GREETING.format("a")).body) == uri_of("server")
                load(mesh, "server", account="second")
                assert called(answer(connection, _GREETING.format("b")).body) == uri_of("second")
        finally:
            place.close()


def load(mesh: Mesh, name: str, account: str = "") -> None:
    """Until the workload of that name, and no other, is the server at the server's address."""
    server = mesh.workload(name, app="server")
    server = msgspec.structs.replace(
        server,
        service_account=account or name,
        addresses=(mesh.hosts["server"].address,),
    )
    mesh.load(MANIFEST, mesh.workload("client"), server, options=MeshOptions(short_way=True))


def move(mesh: Mesh) -> None:
    """Give the server's address to the second workload; within the server's namespace it stays."""
    first, second = mesh.hosts["server"], mesh.hosts["second"]
    run("ip", "-n", first.name, "link", "set", "eth0", "down")
    run("ip", "-n", second.name, "addr", "del", f"{second.address}/24", "dev", "eth0")
    run("ip", "-n", second.name, "addr", "add", f"{first.address}/24", "dev", "eth0")


def called(head: str) -> str:
    """Who is named as the one that is called."""
    (value,) = headers(head)["x-forwarded-client-cert"]
    return value.partition(";")[0].removeprefix("By=")
