"""Services that share a namespace, told apart by real cgroups: real packets, both writers, both
families. The namespace stands for a host's own."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd.capture.host import cgroups
from meshd.capture.host.hold import hold
from meshd.capture.host.rules import HostWorkload
from meshd.capture.rules import apply, inside
from meshd.capture.rules.never_captured import METADATA_ADDRESSES
from meshd.capture.rules.options import CaptureOptions
from meshd.capture.rules.rule import Family
from meshd.capture.rules.targets import HostCapture
from meshd.model.interception import PROXY_INBOUND_MARK, PROXY_MARK
from tests.waiting import PATIENCE

CLIENT = """
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
client.settimeout(0.5)
try:
    client.connect((address, port))
except TimeoutError:
    print("dropped")
except ConnectionRefusedError:
    print("refused")
else:
    print("connected")
"""
QUERY = """
import socket, sys
asker = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(60)
asker.connect((sys.argv[1], 53))
asker.send(b"question")
print(asker.recv(64).decode())
"""
FOREIGN = """*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:THEIRS - [0:0]
-A PREROUTING -p tcp -m tcp --dport 7001 -j THEIRS
-A OUTPUT -p udp -j ACCEPT
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A OUTPUT -p tcp -m tcp --dport 7002 -j DROP
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A OUTPUT -p tcp -m tcp --dport 7003 -j MARK --set-xmark 0x1/0xff
COMMIT
"""


@pytest.fixture
def parent() -> Iterator[str]:
    name = f"mhc{os.getpid()}"
    (cgroups.root() / name).mkdir()
    yield name
    for inner in sorted((cgroups.root() / name).glob("**/"), reverse=True):
        inner.rmdir()


class Services:
    """Two of them, web and shop, and the namespace that they share."""

    def __init__(self, network: Any, parent: str, backend: str) -> None:
        self.network = network
        self.host = network.workload
        self.backend = backend
        self._parent = parent
        self.web = self.make("web", 15101, (8081,))
        self.shop = self.make("shop", 15103, (8082,))

    def make(self, name: str, port: int, ports: tuple[int, ...]) -> HostWorkload:
        path = f"{self._parent}/{name}"
        (cgroups.root() / path).mkdir(exist_ok=True)
        return HostWorkload(
            uid=f"mesh.{name}",
            cgroup=path,
            cgroup_id=cgroups.identify(path),
            outbound_port=port,
            inbound_port=port + 1,
            ports=ports,
            options=CaptureOptions(backend=self.backend, connection_rate=100),
        )

    def capture(self, *workloads: HostWorkload) -> apply.Outcome:
        wanted = HostCapture(workloads, backend=self.backend)
        return self.network.inside(functools.partial(apply.apply_host, wanted))

    def hold(self, starting: HostWorkload, *others: HostWorkload) -> bool:
        action = functools.partial(
            hold,
            dataclasses.replace(starting, held=True),
            tuple(dataclasses.replace(one, held=True) for one in (starting, *others)),
            self.backend,
        )
        return self.network.inside(action)

    def run(self, service: str, program: str, *arguments: str) -> str:
        """What a process of a service prints; of none that is enrolled: others."""
        cgroup = cgroups.root() / self._parent / service
        cgroup.mkdir(exist_ok=True)
        script = f'echo 0 > {cgroup}/cgroup.procs && exec "$@"'
        return self.outside_of_cgroups(
            "sh", "-c", script, "sh", sys.executable, "-c", program, *arguments
        )

    def outside_of_cgroups(self, *command: str) -> str:
        """``ip netns exec`` would hide the cgroups."""
        done = subprocess.run(
            ["nsenter", f"--net={self.host.netns}", *command],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        return done.stdout.strip()

    def connect(self, service: str, address: str, port: int) -> str:
        return self.run(service, CLIENT, address, str(port))


@pytest.fixture
def services(network: Any, parent: str, backend: str) -> Services:
    return Services(network, parent, backend)


def loopback(addresses: dict[str, str]) -> str:
    return "::1" if ":" in addresses["any"] else "127.0.0.1"


def test_what_a_service_sends_arrives_at_its_own_port(
    services: Services, addresses: dict[str, str]
) -> None:
    services.capture(services.web, services.shop)
    for name, port in (("web", 15101), ("shop", 15103)):
        with services.host.listen(loopback(addresses), port) as proxy:
            assert services.connect(name, addresses["elsewhere"], 80) == "connected"
            with proxy.accept() as accepted:
                assert accepted.original == (addresses["elsewhere"], 80)


def test_nobody_but_a_proxy_answers_at_the_ports_of_a_service(
    services: Services, addresses: dict[str, str]
) -> None:
    """Any user may listen there, and got what the service sends, while no proxy does."""
    web = dataclasses.replace(services.web, proxy_user=os.geteuid() + 1)
    services.capture(web)
    with services.host.listen(loopback(addresses), 15101):
        assert services.connect("web", addresses["elsewhere"], 80) == "dropped"
    assert services.connect("web", addresses["elsewhere"], 80) == "refused"
    assert not services.capture(web).steps, "what is written is what was wanted"


def test_others_of_the_host_are_left_alone(services: Services, addresses: dict[str, str]) -> None:
    services.capture(services.web, services.shop)
    with (
        services.network.peer.listen(addresses["elsewhere"], 80) as server,
        services.host.listen(addresses["any"], 9000) as own,
    ):
        assert services.connect("others", addresses["elsewhere"], 80) == "connected"
        with server.accept() as accepted:
            assert accepted.client == addresses["workload"]
        with services.network.peer.connect(addresses["workload"], 9000), own.accept() as accepted:
            assert accepted.original == (addresses["workload"], 9000)


def test_inbound_only_declared_ports_are_captured(
    services: Services, addresses: dict[str, str]
) -> None:
    services.capture(services.web, services.shop)
    for port, own in ((8081, 15102), (8082, 15104)):
        with (
            services.host.listen(addresses["any"], own) as proxy,
            services.network.peer.connect(addresses["workload"], port),
            proxy.accept() as accepted,
        ):
            assert accepted.original == (addresses["workload"], port)
            assert accepted.client == addresses["peer"]


def test_local_clients_of_a_declared_port_arrive_at_the_proxy_too(
    services: Services, addresses: dict[str, str]
) -> None:
    services.capture(services.web, services.shop)
    with services.host.listen(addresses["any"], 15104) as proxy:
        for address in (addresses["workload"], loopback(addresses)):
            assert services.connect("others", address, 8082) == "connected"
            with proxy.accept() as accepted:
                assert accepted.original == (address, 8082)
        with (
            services.host.connect(addresses["workload"], 8082, mark=PROXY_MARK),
            proxy.accept() as accepted,
        ):
            assert accepted.original == (addresses["workload"], 8082)
    with services.host.listen(loopback(addresses), 15101) as proxy:
        assert services.connect("web", addresses["workload"], 8082) == "connected"
        with proxy.accept() as accepted:
            assert accepted.original == (addresses["workload"], 8082)
    with services.host.listen(addresses["any"], 8082):
        assert services.connect("shop", loopback(addresses), 8082) == "connected"


def test_replies_to_the_clients_own_address_come_back_to_the_proxy(
    services: Services, addresses: dict[str, str]
) -> None:
    services.capture(services.web)
    with (
        services.host.listen(addresses["any"], 15102) as proxy,
        services.host.listen(addresses["workload"], 8081) as application,
        services.network.peer.connect(addresses["workload"], 8081) as client,
        proxy.accept() as downstream,
        services.host.connect(
            addresses["workload"],
            8081,
            source=addresses["peer"],
            source_port=client.getsockname()[1],
            mark=PROXY_INBOUND_MARK,
        ) as upstream,
        application.accept() as served,
    ):
        assert served.client == addresses["peer"]
        client.sendall(b"question")
        upstream.sendall(downstream.socket.recv(64))
        assert served.socket.recv(64) == b"question"
        served.socket.sendall(b"answer")
        downstream.socket.sendall(upstream.recv(64))
        assert client.recv(64) == b"answer"


def test_ssh_and_the_metadata_service_are_never_captured(
    services: Services, addresses: dict[str, str]
) -> None:
    family = Family.IPV6 if ":" in addresses["any"] else Family.IPV4
    metadata = METADATA_ADDRESSES[family].partition("/")[0]
    length = METADATA_ADDRESSES[family].partition("/")[2]
    peer = services.network.peer
    nodad = ["nodad"] if family is Family.IPV6 else []
    peer.run("ip", "address", "add", f"{metadata}/{length}", "dev", "lo", *nodad)
    services.capture(services.web)
    services.hold(services.shop, services.web)
    for service in ("web", "shop"):
        with peer.listen(metadata, 80), peer.listen(addresses["elsewhere"], 22):
            assert services.connect(service, metadata, 80) == "connected"
            assert services.connect(service, addresses["elsewhere"], 22) == "connected"
    assert services.connect("web", addresses["elsewhere"], 80) == "refused"
    assert services.connect("shop", addresses["elsewhere"], 80) == "dropped"


def test_queries_of_a_service_arrive_at_its_own_port(
    services: Services, addresses: dict[str, str]
) -> None:
    services.capture(services.web)
    family = socket.AF_INET6 if ":" in addresses["any"] else socket.AF_INET
    with services.host.socket(family, socket.SOCK_DGRAM) as resolver:
        resolver.bind((loopback(addresses), 15101))
        asking = subprocess.Popen(
            [
                *("nsenter", f"--net={services.host.netns}", "sh", "-c"),
                f'echo 0 > {cgroups.root() / services.web.cgroup}/cgroup.procs && exec "$@"',
                *("sh", sys.executable, "-c", QUERY, addresses["elsewhere"]),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        question, asker = resolver.recvfrom(64)
        assert question == b"question"
        resolver.sendto(b"answer", asker)
        assert asking.communicate(timeout=PATIENCE)[0].strip() == "answer"


def test_rules_follow_a_service_into_its_next_cgroup(
    services: Services, addresses: dict[str, str]
) -> None:
    services.capture(services.web)
    place = cgroups.root() / services.web.cgroup
    place.rmdir()
    place.mkdir()
    web = services.make("web", 15101, (8081,))
    assert web.cgroup_id != services.web.cgroup_id
    with services.network.peer.listen(addresses["elsewhere"], 80):
        assert services.connect("web", addresses["elsewhere"], 80) == "connected"
        assert services.capture(web).steps
        assert services.connect("web", addresses["elsewhere"], 80) == "refused"
        assert not services.capture(web).steps


def test_a_held_service_passes_nothing_until_it_is_captured(
    services: Services, addresses: dict[str, str]
) -> None:
    services.capture(services.web)
    assert not services.hold(services.web, services.shop)
    assert services.hold(services.shop, services.web)
    with (
        services.host.listen(addresses["any"], 8082),
        services.network.peer.listen(addresses["elsewhere"], 80),
        services.host.listen(loopback(addresses), 15103),
    ):
        assert services.connect("shop", addresses["elsewhere"], 80) == "dropped"
        assert not services.network.peer.can_connect(addresses["workload"], 8082)
        assert services.connect("others", addresses["workload"], 8082) == "dropped"
        assert services.connect("shop", loopback(addresses), 8082) == "connected"
        services.capture(services.web, services.shop)
        assert services.connect("shop", addresses["elsewhere"], 80) == "connected"


def test_a_service_started_during_a_look_elsewhere_is_not_released(
    services: Services, addresses: dict[str, str]
) -> None:
    """They looked for its cgroup before it was there, and act after it is held."""
    unseen = dataclasses.replace(services.shop, cgroup_id=0)
    assert services.hold(services.shop, services.web)
    assert services.hold(services.web, unseen)
    with services.network.peer.listen(addresses["elsewhere"], 80):
        assert services.connect("shop", addresses["elsewhere"], 80) == "dropped"
        services.capture(services.web, unseen)
        # By a redirection to where no proxy listens.
        assert services.connect("shop", addresses["elsewhere"], 80) == "refused"


def test_services_that_start_at_the_same_time_are_held_together(services: Services) -> None:
    workers = [services.make(f"w{index}", 15105 + 2 * index, ()) for index in range(4)]
    held = [dataclasses.replace(one, held=True) for one in workers]
    children: list[int] = []
    for one in held:
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                with inside.entered(services.host.netns):
                    hold(one, tuple(held), services.backend)
                status = 0
            os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    saved = services.host.save()
    for one in workers:
        assert f'"{one.uid}@{one.cgroup_id}"' in saved


def routing(host: Any) -> list[str]:
    """Link-local routes come when they like."""
    printed = "".join(
        host.run("ip", version, "rule") + host.run("ip", version, "route", "show", "table", "all")
        for version in ("-4", "-6")
    )
    return [line for line in printed.splitlines() if "fe80:" not in line]


@pytest.mark.parametrize("foreign", [False, True], ids=["empty", "foreign rules"])
def test_removal_leaves_everything_byte_for_byte_as_it_was(
    services: Services, tmp_path: Path, foreign: bool
) -> None:
    host = services.host
    if services.backend == "legacy":
        for program in ("iptables-legacy", "ip6tables-legacy"):
            for table in ("raw", "mangle", "nat"):
                host.run(program, "-t", table, "-S")
    if foreign:
        (tmp_path / "rules").write_text(FOREIGN)
        for program in ("iptables", "ip6tables"):
            host.run(f"{program}-{services.backend}-restore", str(tmp_path / "rules"))
    before, routes = host.save(), routing(host)
    services.hold(services.web, services.shop)
    services.capture(services.web)
    alone = host.save()
    services.capture(services.web, services.shop)
    assert re.findall("mesh.shop", host.save())
    services.capture(services.web)
    assert host.save() == alone
    if foreign:
        theirs = [line for line in before.splitlines() if line.startswith("-A")]
        assert [line for line in alone.splitlines() if line in theirs] == theirs
    services.capture()
    assert host.save() == before
    assert routing(host) == routes


def test_the_table_100_of_others_is_left_alone(services: Services) -> None:
    host = services.host
    host.run("ip", "route", "add", "198.19.99.0/24", "dev", "eth0", "table", "100")
    services.capture(services.web)
    assert host.run("ip", "route", "show", "table", "100").count("\n") == 1
    services.capture()
    assert host.run("ip", "route", "show", "table", "100").count("\n") == 1
