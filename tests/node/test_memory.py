"""What a workload costs in the pool does not depend on how many services there are."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from meshd import wire
from meshd.model.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.node.conftest import Node

LIMIT = 100 * 1024
"""Bytes for one more workload in each member of the pool."""
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
    """Workloads in which nothing runs."""

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
                service_account="crowd",
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


def growth(node: Node) -> list[float]:
    """Bytes for each workload between the first few and many, by proxy."""
    crowd = Crowd(node)
    try:
        crowd.grow(FEW)
        before = [allocated(node, name) for name in ("proxy-0", "proxy-1")]
        crowd.grow(MANY)
        after = [allocated(node, name) for name in ("proxy-0", "proxy-1")]
    finally:
        crowd.go()
    return [(last - first) / (MANY - FEW) for first, last in zip(before, after, strict=True)]


def test_one_more_workload_costs_little(
    alone: Node, record_property: Callable[[str, object], None]
) -> None:
    without = growth(alone)
    services = [alone.write.service(f"s{number}") for number in range(SERVICES)]
    alone.apply(alone.write.dump(*services))
    with_services = growth(alone)
    record_property("bytes_per_workload", [*without, *with_services])
    print("bytes for one more workload:", without, f"with {SERVICES} services:", with_services)
    assert max(without) < LIMIT
    assert max(with_services) < LIMIT
