"""meshctl top against pods that do what can be seen."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Generator
from typing import Any

from tests.waiting import PATIENCE

WRITTEN = 5_000_000
BUSY = """
import select, socket, sys
held = [socket.create_connection(("server", 91)) for _ in range(3)]
memory = bytearray(40_000_000)
with open("/tmp/top-test", "wb") as file:
    file.write(bytes({written}))
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    sum(range(10_000))
"""


@contextlib.contextmanager
def busy(node: Any, pod: str) -> Generator[None]:
    """It computes, writes, holds memory and connections within the block."""
    process: subprocess.Popen[str] = node.begin(
        pod, sys.executable, "-c", BUSY.format(written=WRITTEN)
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=PATIENCE)
        yield
    finally:
        process.communicate(timeout=PATIENCE)  # its input ends, and so does it
        node.exec(pod, "rm", "-f", "/tmp/top-test")


def rows(node: Any) -> dict[str, Any]:
    done = node.meshctl("top", "-n", "mesh", "-o", "json")
    assert done.status == 0, done.errors
    found = json.loads(done.output)
    return {row["workload"].rsplit("-", 2)[0]: row for row in found}


def settled(node: Any) -> dict[str, Any]:
    """The rows, once those connections of earlier tests that end have ended."""
    looks = [rows(node)]

    def stays() -> bool:
        looks.append(rows(node))
        before, now = (
            [look[pod]["connections"] for pod in ("alice", "bob")] for look in looks[-2:]
        )
        return before == now

    node.eventually(stays, "the number of connections stays as it is")
    return looks[-1]


def working(node: Any) -> dict[str, Any]:
    """The rows, once alice has had a part of the processor, of which others want theirs."""
    now = rows(node)
    return now if now["alice"]["cpu_percent"] > 10 else {}


def test_each_pods_usage_has_its_own_row(node: Any) -> None:
    before = settled(node)
    with busy(node, "alice"):
        now = node.eventually(lambda: working(node), "alice is seen to compute")
    alice, bob = now["alice"], now["bob"]
    assert alice["processes"] > before["alice"]["processes"]
    assert alice["memory"] > before["alice"]["memory"] + 30_000_000
    assert alice["disk"] >= (before["alice"]["disk"] or 0) + WRITTEN
    assert alice["connections"] == before["alice"]["connections"] + 3
    assert bob["cpu_percent"] < 5
    assert bob["disk"] == before["bob"]["disk"]
    assert bob["connections"] == before["bob"]["connections"]


def test_bytes_are_those_of_the_pods_own_namespace(node: Any) -> None:
    before = rows(node)
    external = node.pod("external.outside").plan.address
    assert node.status_of("alice", f"http://{external}:8080/") == "200"
    now = rows(node)
    assert now["alice"]["received"] > before["alice"]["received"]
    assert now["alice"]["sent"] > before["alice"]["sent"]
