"""The connections of one client share an upstream connection, and those of two never do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import msgspec
import pytest

from meshd.model.snapshot import MeshOptions
from tests.envoy.between.application import Application
from tests.envoy.between.conftest import MANIFEST
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Host, Mesh, answer, uri_of
from tests.envoy.captured.place import run

CLIENTS = ("client", "other")
REQUEST = "GET / HTTP/1.1\nhost: server.test"
MANY = 30
"""So many that with two hashed values both orders are all but certain."""
_RECEIVED = ("-i", "eth0", "-p", "tcp", "--dport", "8080", "--syn")
STRICT = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: servers}
spec: {mtls: {mode: STRICT}}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("pools"), (*CLIENTS, "server")) as made:
        load(made)
        for name in (*CLIENTS, "server"):
            made.capture(name)
        run(*_raw(made), "-I", "PREROUTING", *_RECEIVED)
        yield made


@pytest.fixture
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080,), ())
    yield made
    made.close()


def load(mesh: Mesh, *, short_way: bool = False, account: str = "") -> None:
    """``account``: the service account of all clients, if they have one in common."""
    clients = [
        msgspec.structs.replace(one, service_account=account or one.service_account)
        for one in map(mesh.workload, CLIENTS)
    ]
    options = MeshOptions(short_way=short_way)
    mesh.load(MANIFEST + STRICT, *clients, mesh.workload("server"), options=options)


def received(mesh: Mesh) -> int:
    """Connections that came to the server over the network."""
    listed = subprocess.check_output((*_raw(mesh), "-nvxL", "PREROUTING"), text=True)
    (rule,) = [line for line in listed.splitlines() if "dpt:8080 " in line]
    return int(rule.split()[0])


def _raw(mesh: Mesh) -> tuple[str, ...]:
    return ("ip", "netns", "exec", mesh.hosts["server"].name, "iptables", "-w", "-t", "raw")


def ask(host: Host, account: str) -> None:
    """Each time on a new connection."""
    for _ in range(MANY):
        seen = host.ask(ADDRESS, 8080, REQUEST)
        assert (seen.status, f"URI={uri_of(account)}" in seen.body) == (200, True)


@pytest.mark.parametrize("account", ["", "both"], ids=["two identities", "two namespaces"])
@pytest.mark.parametrize("short_way", [False, True], ids=["network", "short way"])
def test_each_client_has_one_connection_to_the_server_and_one_to_the_application(
    mesh: Mesh, application: Application, short_way: bool, account: str
) -> None:
    load(mesh, short_way=short_way, account=account)
    crossed = received(mesh)
    opened: list[tuple[int, int]] = []
    for name in (*CLIENTS, *CLIENTS):
        ask(mesh.hosts[name], account or name)
        opened.append((received(mesh) - crossed, len(application.peers)))
    both = [1, 2, 2, 2]
    assert opened == [(0 if short_way else count, count) for count in both]
    assert set(application.peers) == {mesh.hosts[name].address for name in CLIENTS}


def test_many_connections_of_one_certificate_share_one_to_the_application(
    mesh: Mesh, application: Application
) -> None:
    """Of a program that speaks for itself; each holder has a certificate of its own."""
    load(mesh)
    opened: list[int] = []
    for account in (*CLIENTS, "client"):
        context = mesh.holder(account)
        for _ in range(MANY):
            client = mesh.outside.connect(mesh.hosts["server"].address, 8080)
            with context.wrap_socket(client) as one:
                assert f"URI={uri_of(account)}" in answer(one, REQUEST).body
        opened.append(len(application.peers))
    assert opened == [1, 2, 3]


def test_requests_that_alternate_share_no_connection(mesh: Mesh, application: Application) -> None:
    for short_way in (False, True):
        load(mesh, short_way=short_way)
        with (
            mesh.hosts["client"].connect(ADDRESS, 8080) as one,
            mesh.hosts["other"].connect(ADDRESS, 8080) as two,
        ):
            for _ in range(10):
                assert f"URI={uri_of('client')}" in answer(one, REQUEST).body
                assert f"URI={uri_of('other')}" in answer(two, REQUEST).body
    assert application.peers
