"""Many workloads and services, of which none does anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.bench.ground import Ground
from tests.bench.node import SPACE, Node, service, workload

_BATCH: Final = 50
"""Workloads that are registered at a time."""


class Population:
    """Each workload has an identity of its own, which is the dearest that it can be."""

    def __init__(self, ground: Ground, node: Node) -> None:
        self._ground = ground
        self._node = node
        self._count = 0

    def grow(self, count: int) -> None:
        """To so many, all proven. Raises MeshdError."""
        while self._count < count:
            batch = range(self._count, min(count, self._count + _BATCH))
            hosts = [self._ground.add(f"w{number}") for number in batch]
            self._node.register(*(workload(host, host.name) for host in hosts))
            self._count += len(hosts)

    def shrink(self, count: int) -> None:
        """To so many; nothing is left of the others. Raises MeshdError."""
        gone = [f"w{number}" for number in range(count, self._count)]
        self._node.unregister(*(f"{SPACE}.{name}" for name in gone))
        for name in gone:
            self._ground.remove(self._ground.host(name))
        self._count = count


def services(count: int) -> Iterator[dict[str, Any]]:
    """Of three ports each, all served by the first workload: endpoints are not what is counted."""
    ports = {"http-web": (80, 8080), "tcp-data": (90, 9000), "any": (91, 8090)}
    for number in range(count):
        address = f"198.19.{1 + number // 200}.{1 + number % 200}"
        yield service(f"s{number}", address, "w0", ports)
