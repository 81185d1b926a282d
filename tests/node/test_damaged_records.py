"""A record on disk that cannot be read costs its workload to be served, and never opens it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from meshd.model.workload import shown

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.node.node import Node


def pid_of_testbed(node: Node) -> int:
    for pid in node.processes():
        with contextlib.suppress(OSError):
            if "meshd.pods" in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                return pid
    raise AssertionError("the testbed does not run")


@contextlib.contextmanager
def nobody_registers(node: Node) -> Generator[None]:
    pid = pid_of_testbed(node)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def redirects(netns: str) -> int:
    done = subprocess.run(
        ["nsenter", f"--net={netns}", "iptables-save", "-t", "nat"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.count("--to-ports 15001")


def one_entry(content: dict[str, Any], uid: str) -> str:
    for part in ("registered", "lives"):
        content[part][uid] = {"labels": 5}
    return json.dumps(content)


def whole(_: dict[str, Any], _uid: str) -> str:
    return "{"


def _told(node: Node) -> str:
    done = node.meshctl("status")
    return done.output + done.errors


@pytest.mark.parametrize("damage", [one_entry, whole])
def test_a_damaged_record_keeps_its_workload_closed_until_it_is_registered_again(
    node: Node, damage: Any
) -> None:
    record = node.paths.workloads
    content = json.loads(record.read_bytes())
    uid = next(uid for uid in content["registered"] if uid.startswith("mesh.alice"))
    netns = content["registered"][uid]["netns"]
    before = redirects(netns)
    assert before
    asking = node.command("alice", "curl", "-s", "--max-time", "3", "http://server:80/")
    with nobody_registers(node):
        record.write_text(damage(content, uid))
        os.kill(node.children()["mesh"].pid, signal.SIGKILL)
        said = f"workload {shown(uid)}: "
        node.eventually(lambda: said in _told(node), "status names it")
        node.eventually(lambda: said in node.log, "the log names it")
        assert redirects(netns) == before

        def is_closed() -> bool:
            return bool(subprocess.run(asking[0], env=asking[1], check=False).returncode)

        node.eventually(is_closed, "proxies have drained what served it")
        assert redirects(netns) == before
    node.eventually(lambda: not node.statuses().problems, "all are registered again")
    node.eventually(node.is_well, "all are served again")
    assert redirects(netns) == before
    assert len(node.answers("alice", "http", "server:80", 1)) == 1
