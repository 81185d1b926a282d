"""What workloads and services cost in the proxies.

And what all of meshd's own processes cost together, once they have done what they do.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshd import wire
from meshd.model.workload import Workload
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.node.node import Node

LIMIT = 250_000
"""Bytes for one more workload with an identity of its own, in all proxies together."""
NOISE = 100
"""Bytes for each workload and service; 430 where DNS goes through the proxies of all else."""
STEADY = 10
"""Looks in a row that must agree."""
STILL = 20_000
"""Bytes by which they may differ."""
FEW, MANY = 5, 25
LINKS = """\
link set lo up
link add eth0 type veth peer name eth1
link set eth0 up
link set eth1 up
address add 198.18.254.%d/24 dev eth0
route add default dev eth0
"""
SERVICES = 200
PYTHON_LIMIT = 150_000_000
"""Bytes resident in all Python processes together, where 129 MB have been seen."""


class _Admin(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


def allocated(node: Node, name: str) -> int:
    """Bytes that a proxy uses."""
    with contextlib.closing(_Admin(str(node.paths.admin_run / f"{name}.sock"))) as admin:
        admin.request("GET", "/memory")
        return int(json.loads(admin.getresponse().read())["allocated"])


class Crowd:
    """Workloads in which nothing runs, each with an identity of its own."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._names: list[str] = []

    def grow(self, count: int) -> None:
        first = len(self._names)
        new = [f"mnm{self._node.supervisor_pid}-{number}" for number in range(first, count)]
        for number, name in enumerate(new, start=first + 10):
            self._names.append(name)
            subprocess.run(["ip", "netns", "add", name], check=True)
            subprocess.run(
                ["ip", "-n", name, "-batch", "-"], input=LINKS % number, text=True, check=True
            )
        workloads = tuple(
            Workload(
                uid=f"mesh.{name}",
                name=name,
                namespace="mesh",
                netns=f"/run/netns/{name}",
                service_account=name,
                labels={"app": name},
                addresses=(f"198.18.254.{number}",),
            )
            for number, name in enumerate(new, start=first + 10)
        )
        assert (
            self._node.ask("mesh", wire.Register(workloads, wait=2 * PATIENCE), 3 * PATIENCE)
            == wire.Done()
        )
        self._node.eventually(lambda: self._node.is_well(inbound=False), "all proxies have it")

    def go(self) -> None:
        uids = tuple(f"mesh.{name}" for name in self._names)
        self._node.ask("mesh", wire.Unregister(uids), 2 * PATIENCE)
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def alone(make: Callable[..., Node]) -> Iterator[Node]:
    node = make(capture={"probe_interval": "60s"})
    node.start()
    node.apply(node.write.dump(node.write.namespace("mesh", enrolled=True)))
    yield node
    node.close()


@pytest.fixture
def crowd(alone: Node) -> Iterator[Crowd]:
    crowd = Crowd(alone)
    yield crowd
    crowd.go()


def settled(node: Node) -> dict[str, int]:
    """What each proxy uses once what it replaced is gone, which is some seconds after it says that
    it has the new."""
    looks: list[dict[str, int]] = []

    def stays() -> bool:
        looks.append({proxy.name: allocated(node, proxy.name) for proxy in node.proxies()})
        recent = looks[-STEADY:]
        return len(recent) == STEADY and all(
            max(look[name] for look in recent) - min(look[name] for look in recent) < STILL
            for name in recent[0]
        )

    node.eventually(stays, "the proxies' memory stays as it is")
    return {name: min(look[name] for look in looks[-STEADY:]) for name in looks[-1]}


def costs(node: Node, act: Callable[[], None]) -> dict[str, int]:
    """What it takes, by proxy, in bytes."""
    before = settled(node)
    act()
    after = settled(node)
    return {name: after[name] - bytes_ for name, bytes_ in before.items()}


def add_services(node: Node, names: str) -> None:
    port = ("http", 80, 8080)
    services = (node.write.service(f"{names}{n}", ports=(port,)) for n in range(SERVICES))
    node.apply(node.write.dump(*services))


def test_memory_grows_with_workloads_and_with_services_and_not_with_both(
    alone: Node, crowd: Crowd, record_property: Callable[[str, object], None]
) -> None:
    crowd.grow(FEW)
    add_services(alone, "first")  # takes what it takes once
    few = costs(alone, lambda: add_services(alone, "few"))
    more = costs(alone, lambda: crowd.grow(MANY))
    many = costs(alone, lambda: add_services(alone, "many"))

    added = MANY - FEW
    workload = {name: bytes_ / added for name, bytes_ in more.items()}
    both = {name: (many[name] - few[name]) / added / SERVICES for name in few}
    record_property("bytes_per_workload", workload)
    record_property("bytes_per_workload_and_service", both)
    print(f"bytes for each workload: {workload}; for each workload and service: {both}")
    assert few.keys() == {"proxy-0", "proxy-1", "dns-0", "dns-1"}
    assert min(few["proxy-0"], few["proxy-1"]) > 1000 * SERVICES  # they have got there
    assert sum(workload.values()) < LIMIT
    assert max(map(abs, both.values())) < NOISE


@pytest.fixture(scope="module")
def worked(make: Callable[..., Node]) -> Iterator[Node]:
    """Ten workloads, with all that happens in days: changes, scrapes, certificates renewed."""
    node = make(identity={"certificate_lifetime": "8s"})
    node.start()
    crowd = Crowd(node)
    try:
        work(node, crowd)
        yield node
    finally:
        crowd.go()
        node.close()


def work(node: Node, crowd: Crowd) -> None:
    services = [node.write.service(f"s{number}") for number in range(20)]
    node.apply(node.write.dump(node.write.namespace("mesh", enrolled=True), *services))
    crowd.grow(10)
    look_at_pages(node)
    first = expiries(node)
    for count in (5, 20, 10):
        node.apply(node.write.dump(*services[:count]))
        look_at_pages(node)
    node.eventually(lambda: not expiries(node) & first, "all certificates are renewed")
    look_at_pages(node)


def look_at_pages(node: Node) -> None:
    port = node.paths.telemetry_port.read_text().strip()
    for path in ("metrics", "", "api/state", "healthz/ready"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE) as answer:
            assert answer.read()


def expiries(node: Node) -> set[tuple[str, str | None]]:
    return {(row.workload, row.certificate_expires) for row in node.statuses().workloads}


def python_processes(node: Node) -> dict[str, Path]:
    """Each one's directory in /proc."""
    pids = {name: child.pid for name, child in node.children().items()}
    pids = {
        name: pid
        for name, pid in pids.items()
        if not name.startswith(("proxy-", "dns-", "resolver"))
    }
    pids["supervisor"] = node.supervisor_pid
    return {name: Path(f"/proc/{pid}") for name, pid in pids.items()}


def resident(process: Path) -> int:
    """Its share of what is resident: a page that several processes map counts once for all."""
    (kib,) = (
        int(line.split()[1])
        for line in (process / "smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
    return kib * 1024


def test_all_python_processes_are_small(
    worked: Node, record_property: Callable[[str, object], None]
) -> None:
    sizes = {name: resident(process) for name, process in python_processes(worked).items()}
    assert sizes.keys() == {"supervisor", "capture", "identity", "mesh", "telemetry"}
    record_property("resident", sizes)
    print("bytes resident:", sizes, "together:", sum(sizes.values()))
    assert sum(sizes.values()) < PYTHON_LIMIT


def test_no_python_process_loads_openssl_but_what_serves_the_page(worked: Node) -> None:
    loading = [
        name
        for name, process in python_processes(worked).items()
        if name != "telemetry" and "/libcrypto.so" in (process / "maps").read_text()
    ]
    assert not loading, "5 MB in each process; meshd/__main__.py tells how they do without"
