"""What a workload costs in the pool does not depend on how many services there are.

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.node.conftest import Node

LIMIT = 210_000
"""Bytes for one more workload with an identity of its own, in both members of the pool together."""
FEW, MANY = 5, 25
LINKS = """\
link set lo up
link add eth0 type veth peer name eth1
link set eth0 up
link set eth1 up
address add 198.18.254.%d/24 dev eth0
route add default dev eth0
"""
SERVICES = 300
PYTHON_LIMIT = 200_000_000
"""Bytes resident in all Python processes together."""


class _Admin(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
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
        assert self._node.ask("mesh", wire.Register(workloads, wait=60), 70) == wire.Done()
        self._node.eventually(self._node.is_well, "all proxies have it")

    def go(self) -> None:
        uids = tuple(f"mesh.{name}" for name in self._names)
        self._node.ask("mesh", wire.Unregister(uids), 60)
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def alone(make: Callable[..., Node]) -> Iterator[Node]:
    node = make(capture={"probe_interval": "60s"})
    node.start()
    node.apply(node.write.dump(node.write.namespace("mesh", enrolled=True)))
    yield node
    node.close()


def growth(node: Node) -> float:
    """Bytes for each workload between the first few and many, in the whole pool."""
    crowd = Crowd(node)
    try:
        crowd.grow(FEW)
        before = sum(allocated(node, proxy.name) for proxy in node.proxies())
        crowd.grow(MANY)
        after = sum(allocated(node, proxy.name) for proxy in node.proxies())
    finally:
        crowd.go()
    return (after - before) / (MANY - FEW)


def test_one_more_workload_costs_little(
    alone: Node, record_property: Callable[[str, object], None]
) -> None:
    without = growth(alone)
    services = [alone.write.service(f"s{number}") for number in range(SERVICES)]
    alone.apply(alone.write.dump(*services))
    with_services = growth(alone)
    record_property("bytes_per_workload", [without, with_services])
    print("bytes for one more workload:", without, f"with {SERVICES} services:", with_services)
    assert without < LIMIT
    assert with_services < LIMIT


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
    port = (node.paths.run / "telemetry.port").read_text().strip()
    for path in ("metrics", "", "api/state", "healthz/ready"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            assert answer.read()


def expiries(node: Node) -> set[tuple[str, str | None]]:
    return {(row.workload, row.certificate_expires) for row in node.statuses().workloads}


def python_processes(node: Node) -> dict[str, Path]:
    """Each one's directory in /proc."""
    pids = {name: child.pid for name, child in node.children().items()}
    pids = {name: pid for name, pid in pids.items() if not name.startswith(("proxy-", "resolver"))}
    pids["supervisor"] = node.supervisor_pid
    return {name: Path(f"/proc/{pid}") for name, pid in pids.items()}


def resident(process: Path) -> int:
    (kib,) = (
        int(line.split()[1])
        for line in (process / "status").read_text().splitlines()
        if line.startswith("VmRSS:")
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
