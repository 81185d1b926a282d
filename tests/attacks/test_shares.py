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

UNREAD, SHARE, QUERIES = 200, 600, 4000
MIB = 1024 * 1024
REQUEST = ("curl", "-s", "-o", "/dev/null", "--max-time", "100")


@pytest.fixture(scope="module")
def crowd(make: Callable[..., Node]) -> Iterator[Node]:
    """A hostile workload and a server of its own choosing, beside those of every node."""
    # Its connections are to be refused for their number, not delayed.
    fast = {"connections_per_second": 0}
    node = make(proxy={"max_connections_per_workload": SHARE}, capture=fast)
    node.start()
    write = node.write
    node.up(
        write.dump(
            *POPULATION,
            write.deployment("mallory"),
            write.deployment("victim", program="server.py", ready=8080),
            write.service("victim"),
            write.namespace("shop", enrolled=True),
            write.deployment("dora", "shop"),
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


def test_unread_downloads_cost_little_and_the_neighbour_nothing(
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


def test_idle_connections_beyond_a_workloads_share_are_closed_and_others_get_theirs(
    crowd: Node,
) -> None:
    before = pids(crowd)
    with hostile(crowd, "idle", "victim:80", 2 * SHARE) as attack:
        crowd.eventually(lambda: open_in(attack) <= SHARE, "those above the share are closed")
        assert open_in(attack) > SHARE / 2
        answers = crowd.answers("alice", "lines", "server:91", 50, 2)
        assert len(answers) == 100
        # The victim's other clients find a place, too.
        assert crowd.answers("bob", "http", "victim:80", 20, 1)[-1].keys() >= {"pod"}
    assert pids(crowd) == before


def open_in(attack: subprocess.Popen[str]) -> int:
    """Established connections of its namespace that were redirected."""
    listed = subprocess.run(
        ["nsenter", f"--net=/proc/{attack.pid}/ns/net", "ss", "-Htn", "state", "established"],
        capture_output=True,
        text=True,
        check=True,
    )
    return sum(":15001 " in line for line in listed.stdout.splitlines())


def test_a_flood_of_queries_costs_a_neighbour_no_name(
    crowd: Node,
) -> None:
    before = pids(crowd)
    with hostile(crowd, "dns", "resolver:53", QUERIES):
        found = [crowd.exec("alice", "getent", "ahostsv4", "server").output for _ in range(30)]
    assert all("server" in lines for lines in found), found
    assert pids(crowd) == before


def rule(crowd: Node, **policy: object) -> str:
    """Of the server's own namespace, for all clients."""
    spec = {"host": "victim", "trafficPolicy": policy}
    made = crowd.write.manifest("DestinationRule", "victim", "mesh", spec=spec)
    return crowd.write.dump(made | {"apiVersion": "networking.istio.io/v1"})


def test_using_up_a_rules_limit_leaves_other_namespaces_theirs(crowd: Node) -> None:
    http = {"http1MaxPendingRequests": 1}
    limited = rule(crowd, connectionPool={"tcp": {"maxConnections": 2}, "http": http})
    with crowd.applied(limited):
        slow = [crowd.begin("mallory", *REQUEST, "http://victim/wait/100") for _ in range(24)]
        try:
            crowd.eventually(
                lambda: crowd.status_of("mallory", "http://victim/") == "503", "it has all"
            )
            got = [crowd.status_of("dora.shop", "http://victim.mesh/") for _ in range(12)]
            assert got == ["200"] * 12
        finally:
            # Inside the pod: a curl whose exec is killed from outside goes on until it is answered.
            crowd.exec("mallory", "pkill", "-KILL", "curl")
            for one in slow:
                one.communicate()


def test_provoked_failures_eject_no_endpoint_of_other_namespaces(crowd: Node) -> None:
    outliers = {"consecutiveGatewayErrors": 2, "interval": "1s", "baseEjectionTime": "60s"}
    with crowd.applied(rule(crowd, outlierDetection=outliers | {"maxEjectionPercent": 100})):
        crowd.eventually(lambda: is_ejected(crowd), "its own requests find no endpoint")
        got = [crowd.status_of("dora.shop", "http://victim.mesh/") for _ in range(12)]
        assert got == ["200"] * 12


def is_ejected(crowd: Node) -> bool:
    """After some requests that the server ends without an answer."""
    for _ in range(4):
        crowd.status_of("mallory", "http://victim/bytes/none")
    return all(crowd.status_of("mallory", "http://victim/") == "503" for _ in range(4))
