"""Where the kernel's limit of open files is low, proxies refuse connections and live."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.node.manifests import POPULATION

if TYPE_CHECKING:
    from tests.node.node import Node

FILES = 1024
MANY = 1000
"""Connections; each would take two open files of a proxy on its way out, and two on its way in."""


@pytest.fixture(scope="module")
def poor(make: Callable[..., Node]) -> Iterator[Node]:
    many = {"max_connections": 50_000, "max_connections_per_workload": 50_000}
    node = make(proxy=many, capture={"connections_per_second": 0})
    node.prefix = ("prlimit", f"--nofile={FILES}:{FILES}")
    node.start()
    node.prefix = ()
    node.up(node.write.dump(*POPULATION))
    yield node
    node.close()


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_proxies_refuse_what_they_have_no_open_files_for(poor: Node) -> None:
    before = [(proxy.name, proxy.pid, proxy.restarts) for proxy in poor.proxies()]
    attack = poor.begin(
        "carol", sys.executable, "/srv/app/hostile.py", "idle", "server:91", f"{MANY}"
    )
    with contextlib.ExitStack() as stack:
        stack.callback(attack.communicate)
        assert attack.stdout
        assert attack.stdout.readline().startswith("begun")
        for proxy in poor.proxies():
            if proxy.name.startswith("proxy-"):
                # What a client has opened waits for the proxy to take it.
                poor.eventually(lambda pid=proxy.pid: open_files(pid) > FILES / 2, proxy.name)
                assert open_files(proxy.pid) < FILES, proxy.name
    assert [(proxy.name, proxy.pid, proxy.restarts) for proxy in poor.proxies()] == before
    poor.eventually(
        lambda: poor.status_of("alice", "http://server/") == "200", "they serve as before"
    )


def test_the_daemon_says_what_is_in_force_and_why(poor: Node) -> None:
    (line,) = [line for line in poor.log.splitlines() if "max_connections is 50000" in line]
    assert line.startswith("warning")
    assert f"{FILES} files" in line
