"""One workload that takes all that it can get costs its neighbour on the same node no answer."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.node.manifests import POPULATION

if TYPE_CHECKING:
    from tests.node.node import Node

UNREAD = 200
PATIENCE = 60.0
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def crowd(make: Callable[..., Node]) -> Iterator[Node]:
    """A hostile workload and a server of its own choosing, beside those of every node."""
    node = make()
    node.start()
    write = node.write
    node.up(
        write.dump(
            *POPULATION,
            write.deployment("mallory"),
            write.deployment("victim", program="server.py", ready=8080),
            write.service("victim"),
        )
    )
    yield node
    node.close()


@contextlib.contextmanager
def hostile(node: Node, how: str, target: str, count: int) -> Generator[subprocess.Popen[str]]:
    """Within the block it has what it could get."""
    attack = node.begin("mallory", sys.executable, "/srv/app/hostile.py", how, target, str(count))
    try:
        assert attack.stdout
        assert attack.stdout.readline().startswith("begun")
        yield attack
    finally:
        attack.communicate()


def resident(node: Node) -> int:
    """Bytes that all proxies have together."""
    pages = (
        int(Path(f"/proc/{proxy.pid}/statm").read_text().split()[1]) for proxy in node.proxies()
    )
    return sum(pages) * 4096


def pids(node: Node) -> list[int]:
    return [proxy.pid for proxy in node.proxies()]


def test_who_reads_nothing_of_many_downloads_costs_little_and_its_neighbour_nothing(
    crowd: Node,
) -> None:
    before, memory = pids(crowd), resident(crowd)
    with hostile(crowd, "unread", "victim:80", UNREAD):
        answers = crowd.answers("alice", "http", "server:80", 50, 2)
        grown = resident(crowd) - memory
    assert [answer for answer in answers if "error" in answer] == []
    assert len(answers) == 100
    # With Envoy's own buffers it was 4 MiB for each.
    assert grown < UNREAD * MIB
    assert pids(crowd) == before
