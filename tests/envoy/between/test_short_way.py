"""The short way means what mutual TLS over the network means, and is open to nobody else."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import HostService, Workload
from tests.envoy.between import http2
from tests.envoy.between.application import BANNER, Application
from tests.envoy.between.conftest import MANIFEST
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import BRIDGE, Mesh, answer, uri_of
from tests.envoy.captured.place import eventually, run

NAMES = ("client", "other", "server")
REQUEST = "GET / HTTP/1.1\nhost: server.test"
STRICT = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: servers}
spec: {mtls: {mode: STRICT}}
"""
CLAIMED = "198.19.77.9"
CLAIM = f"""
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: claim, namespace: clients}}
spec: {{address: 198.18.77.4, labels: {{app: claim}}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: claim, namespace: clients}}
spec:
  hosts: [claim.test]
  addresses: [{CLAIMED}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: claim}}}}
  ports:
  - {{number: 8080, name: http, protocol: HTTP}}
  - {{number: 9000, name: tcp, protocol: TCP}}
"""
RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server, namespace: servers}
spec: {host: server.test, trafficPolicy: {tls: {mode: %s}}}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("short"), NAMES) as made:
        load(made)
        for name in NAMES:
            made.capture(name)
        count_received(made)
        yield made


@pytest.fixture(scope="module")
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080, 7000), (9000, 7001))
    yield made
    made.close()


def load(
    mesh: Mesh,
    more: str = "",
    *,
    on: bool = True,
    without_caller: str = "",
    without_destination: str = "",
) -> None:
    workloads = [mesh.workload(name) for name in NAMES]
    callers = tuple(uri_of(name) for name in NAMES if name != without_caller)
    uids = tuple(one.uid for one in workloads if one.name != without_destination)
    mesh.load(
        MANIFEST + more,
        *workloads,
        options=MeshOptions(short_way=on, outbound_policy="REGISTRY_ONLY"),
        short_way=ShortWay(callers, uids),
    )


def count_received(mesh: Mesh) -> None:
    """From now on, count the connections that come to the server over the network."""
    run(*_tables(mesh), "-I", "PREROUTING", "-i", "eth0", "-p", "tcp", "--syn")


def received(mesh: Mesh) -> int:
    """How many that are: no other packets, which come at any time."""
    listed = subprocess.check_output((*_tables(mesh), "-nvxL", "PREROUTING"), text=True)
    (rule,) = [line for line in listed.splitlines() if "eth0" in line and "flags" in line]
    return int(rule.split()[0])


def _tables(mesh: Mesh) -> tuple[str, ...]:
    server = mesh.hosts["server"].name
    return ("ip", "netns", "exec", server, "iptables", "-w", "-t", "raw")


def names_seen(mesh: Mesh, client: str) -> list[str]:
    """Whom the application is told to be called by: over HTTP/1.1, where the protocol is detected,
    and over HTTP/2."""
    host = mesh.hosts[client]
    seen = host.ask(ADDRESS, 8080, REQUEST).body + host.ask(ADDRESS, 7000, REQUEST).body
    with host.connect(ADDRESS, 8080) as connection:
        connection.sendall(http2.request(b"/seen"))
        while (data := connection.recv(65536)) and b"URI=" not in data:
            pass
    return re.findall(r"URI=([^\s;,]+)", seen + data.decode("latin-1"))


def first_words(mesh: Mesh, client: str, address: str = ADDRESS) -> bytes:
    """What a TCP service says; nothing when the connection ends before."""
    try:
        with mesh.hosts[client].connect(address, 9000) as connection:
            return connection.makefile("rb").readline()
    except ConnectionError:
        return b""


def stays_inside(mesh: Mesh) -> bool:
    """Whether a new TCP connection takes the short way."""
    before = received(mesh)
    assert first_words(mesh, "client") == BANNER
    return received(mesh) == before


@pytest.mark.parametrize("on", [True, False])
def test_the_application_sees_each_callers_own_name_and_address(
    mesh: Mesh, application: Application, on: bool
) -> None:
    load(mesh, STRICT, on=on)
    for name in ("client", "other", "client", "other"):
        before = len(application.peers)
        assert names_seen(mesh, name) == [uri_of(name)] * 3
        assert first_words(mesh, name) == BANNER
        assert set(application.peers[before:]) <= {mesh.hosts[name].address}
        assert len(application.peers) > before


POLICY = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: servers}
spec: {action: DENY, rules: [%s]}
"""


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize("more", ["", POLICY % "{from: [{source: {namespaces: [bad]}}]}"])
def test_no_connection_crosses_the_network(mesh: Mesh, more: str) -> None:
    load(mesh, more)
    before = received(mesh)
    assert names_seen(mesh, "client") == [uri_of("client")] * 3
    assert first_words(mesh, "client") == BANNER
    assert received(mesh) == before


@pytest.mark.usefixtures("application")
def test_no_request_fails_while_it_is_turned_on_and_off(mesh: Mesh) -> None:
    load(mesh, on=False)
    client, done, statuses = mesh.hosts["client"], threading.Event(), list[int]()

    def ask() -> None:
        while not done.is_set():
            statuses.append(client.ask(ADDRESS, 8080, REQUEST).status)

    def ask_on_one_connection() -> None:
        """Until it is closed, which it is when the listener that took it is drained."""
        while not done.is_set():
            with contextlib.suppress(ConnectionError), client.connect(ADDRESS, 8080) as one:
                while not done.is_set():
                    statuses.append(answer(one, REQUEST).status)

    with ThreadPoolExecutor() as threads:
        asking = [threads.submit(one) for one in (ask, ask_on_one_connection)]
        try:
            for on in (True, False):
                load(mesh, on=on)
                eventually(lambda on=on: stays_inside(mesh) == on, f"the short way: {on}")
                before = len(statuses)
                eventually(lambda before=before: len(statuses) > before + 10, "requests go on")
        finally:
            done.set()
        for one in asking:
            one.result()
    assert set(statuses) == {200}


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize("first", [True, False])
def test_open_connections_stay_while_the_way_to_their_server_is_another(
    mesh: Mesh, first: bool
) -> None:
    """The service has another cluster when its first endpoint comes to be reached inside, and when
    its last one does not any more."""

    def reach_inside(is_so: bool) -> None:
        load(mesh, without_destination="" if is_so else "server")
        eventually(lambda: stays_inside(mesh) == is_so, f"the short way: {is_so}")

    reach_inside(first)
    client = mesh.hosts["client"]
    with (
        client.connect(ADDRESS, 9000) as tcp,
        client.connect(ADDRESS, 8080) as http,
        client.connect(ADDRESS, 8080) as upgraded,
    ):
        stream = tcp.makefile("rb")
        assert stream.readline() == BANNER
        asked = "GET /socket HTTP/1.1\r\nhost: server.test\r\nconnection: upgrade"
        upgraded.sendall(f"{asked}\r\nupgrade: websocket\r\n\r\n".encode())
        assert upgraded.recv(4096).startswith(b"HTTP/1.1 101 ")
        for is_so in (not first, first):
            reach_inside(is_so)
            tcp.sendall(b"hello\n")
            assert stream.readline() == b"hello\n"
            assert answer(http, REQUEST).status == 200
            upgraded.sendall(b"hello")
            assert upgraded.recv(4096) == b"hello"


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize("on", [True, False])
def test_a_workload_that_calls_itself_is_named(mesh: Mesh, on: bool) -> None:
    load(mesh, on=on)
    assert names_seen(mesh, "server") == [uri_of("server")] * 3
    assert first_words(mesh, "server") == BANNER


@pytest.mark.usefixtures("application")
def test_callers_whose_requests_alternate_share_no_connection(mesh: Mesh) -> None:
    load(mesh)
    with (
        mesh.hosts["client"].connect(ADDRESS, 8080) as one,
        mesh.hosts["other"].connect(ADDRESS, 8080) as two,
    ):
        for _ in range(10):
            assert f"URI={uri_of('client')}\r\n" in answer(one, REQUEST).body
            assert f"URI={uri_of('other')}\r\n" in answer(two, REQUEST).body


@pytest.mark.usefixtures("application")
def test_a_caller_without_a_certificate_is_refused(mesh: Mesh) -> None:
    load(mesh, on=False)  # no connection is left that it has opened before
    load(mesh, without_caller="other")
    assert mesh.hosts["other"].ask(ADDRESS, 8080, REQUEST).status == 503
    assert first_words(mesh, "other") == b""
    assert names_seen(mesh, "client") == [uri_of("client")] * 3


@pytest.mark.usefixtures("application")
def test_no_caller_at_all_is_a_closed_way(mesh: Mesh) -> None:
    workloads = [mesh.workload(name) for name in NAMES]
    options = MeshOptions(short_way=True, outbound_policy="REGISTRY_ONLY")
    uids = tuple(one.uid for one in workloads)
    mesh.load(MANIFEST, *workloads, options=options, short_way=ShortWay((), uids))
    assert first_words(mesh, "client") == b""


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize(
    ("more", "without_destination"),
    [
        ("", "server"),
        (RULE % "DISABLE", ""),
        (STRICT.replace("STRICT", "DISABLE"), ""),
        (POLICY % "{when: [{key: connection.sni, values: [bad.test]}]}", ""),
    ],
    ids=["not captured", "plaintext by rule", "plaintext by policy", "names in TLS hellos"],
)
def test_connections_outside_the_short_way_cross_the_network(
    mesh: Mesh, more: str, without_destination: str
) -> None:
    load(mesh, more, without_destination=without_destination)
    before = received(mesh)
    assert first_words(mesh, "client") == BANNER
    assert received(mesh) > before


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize("on", [True, False])
def test_an_entry_that_claims_a_workloads_address_does_not_pass_for_it(
    mesh: Mesh, on: bool
) -> None:
    load(mesh, CLAIM, on=on)
    assert first_words(mesh, "client", CLAIMED) == BANNER
    load(mesh, CLAIM + STRICT, on=on)
    assert first_words(mesh, "client", CLAIMED) == b""
    refused = mesh.hosts["client"].ask(CLAIMED, 8080, "GET / HTTP/1.1\nhost: claim.test")
    assert refused.status == 503


def test_a_service_of_the_host_calls_a_workload_with_its_own_name_and_address(
    tmp_path: Path,
) -> None:
    """It has no namespace to be named, and the connection is opened in the other's all the same."""
    with Mesh(tmp_path, ("client", "server"), on_host=True) as mesh:
        service = Workload(
            uid="clients.service",
            name="service",
            namespace="clients",
            netns="",
            service_account="service",
            addresses=(BRIDGE,),
            host=HostService(cgroup="service", outbound_port=15101, inbound_port=15102),
        )
        workloads = (mesh.workload("client"), mesh.workload("server"), service)
        mesh.load(MANIFEST, *workloads, options=MeshOptions(short_way=True))
        for name in mesh.hosts:
            mesh.capture(name)
        count_received(mesh)
        redirect = f"-p tcp -d {ADDRESS} -j REDIRECT --to-ports 15101"
        inside = ("ip", "netns", "exec", mesh.outside.name)
        run("ip", "-n", mesh.outside.name, "route", "add", f"{ADDRESS}/32", "dev", "br0")
        run(*inside, "iptables", "-w", "-t", "nat", "-A", "OUTPUT", *redirect.split())
        made = Application(mesh.hosts["server"].netns, (8080,), (9000,))
        try:
            callers = {"service": mesh.outside, "client": mesh.hosts["client"]}
            for name, host in (*callers.items(), *callers.items()):
                before, crossed = len(made.peers), received(mesh)
                seen = host.ask(ADDRESS, 8080, REQUEST).body
                assert f"URI={uri_of(name)}\r\n" in seen
                with host.connect(ADDRESS, 9000) as connection:
                    assert connection.makefile("rb").readline() == BANNER
                assert set(made.peers[before:]) == {host.address}
                assert received(mesh) == crossed
        finally:
            made.close()
