"""Replies that carry the mark of their connection, and what changes that, under real requests."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from meshd.capture.rules.replies import SYSCTL
from tests.node.loads import CLIENTS, load

if TYPE_CHECKING:
    from tests.node.node import Node

OFF = "sysctl", "-qw", f"{SYSCTL}=0"
RULE = "fwmark", "0x53a/0xfff", "lookup", "15100"
THEIRS = "fwmark", "1", "lookup", "200"
"""A rule of the workload's own: with it, marks of accepted sockets are left alone."""


def in_server(node: Node, *command: str) -> str:
    (netns,) = (row.netns for row in node.statuses().workloads if row.uid.startswith("mesh.server"))
    inside = ["nsenter", f"--net={netns}", *command]
    return subprocess.run(inside, capture_output=True, text=True, check=True).stdout


def slower(node: Node) -> str:
    rows = node.statuses().workloads
    return next(row.slower for row in rows if row.uid.startswith("mesh.server"))


@pytest.mark.parametrize("marked", [True, False])
def test_a_workload_reaches_itself_by_each_of_its_names(node: Node, marked: bool) -> None:
    address = node.pod("server").plan.address
    if not marked:
        in_server(node, *OFF)
    try:
        assert in_server(node, "sysctl", "-n", SYSCTL) == f"{int(marked)}\n"
        for host in ("server", "bare:8080", f"{address}:8080", "127.0.0.1:8080"):
            assert node.status_of("server", f"http://{host}/") == "200"
    finally:
        in_server(node, "sysctl", "-qw", f"{SYSCTL}=1")


def test_no_request_fails_while_others_undo_and_forbid_the_marks(node: Node) -> None:
    node.eventually(lambda: slower(node) == "", "replies are marked")
    with load(node) as went:
        in_server(node, "ip", "rule", "add", *THEIRS)
        node.eventually(lambda: "fwmark 0x1 lookup 200" in slower(node), "they are marked no more")
        assert "0x53a" not in in_server(node, "ip", "rule")
        in_server(node, "ip", "rule", "del", *THEIRS)
        node.eventually(lambda: slower(node) == "", "replies are marked again")
        in_server(node, *OFF)
        in_server(node, "ip", "rule", "del", *RULE)
        node.eventually(lambda: "0x53a" in in_server(node, "ip", "rule"), "the rule is back")
        in_server(node, "sysctl", "-qw", f"{SYSCTL}=1")
    assert went[0]["ok"] >= CLIENTS
    assert went[0]["failures"] == []
