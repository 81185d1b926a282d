"""Each process killed in turn: traffic flows on, and the process comes back to what it was."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from meshd.model.pool import Pool
from meshd.proxy.pool import Member
from meshd.resolver.command import NAMES as RESOLVERS
from tests.node.loads import CLIENTS, load

if TYPE_CHECKING:
    from tests.node.node import Node


def kill(node: Node, name: str) -> None:
    pid = node.supervisor_pid if name == "supervisor" else node.children()[name].pid
    os.kill(pid, signal.SIGKILL)


def comes_back(node: Node, name: str, before: int) -> None:
    def is_back() -> bool:
        child = node.children().get(name)
        return child is not None and child.pid != before and bool(node.is_well())

    node.eventually(is_back, f"{name} is back")


@pytest.mark.parametrize("name", ["capture", "identity", "mesh", "telemetry", "resolver"])
def test_traffic_flows_on_without_a_role(node: Node, name: str) -> None:
    before = node.children()[name].pid
    with load(node) as went:
        kill(node, name)
        comes_back(node, name, before)
    assert went[0]["ok"] >= CLIENTS
    assert went[0]["failures"] == []
    assert len(node.answers("bob", "http", "server:80", 1)) == 1


@pytest.mark.parametrize("slot", [0, 1])
def test_a_killed_proxy_fails_what_it_had_in_hand_and_no_more(node: Node, slot: int) -> None:
    (name,) = (
        proxy.name
        for proxy in node.proxies()
        if (one := Member.parse(proxy.name)) and (one.pool, one.slot) == (Pool.TRAFFIC, slot)
    )
    before = node.children()[name].pid
    with load(node) as went:
        kill(node, name)
        comes_back(node, name, before)
    assert went[0]["ok"] >= CLIENTS
    assert len(went[0]["failures"]) <= CLIENTS


def test_proxies_replaced_one_by_one_lose_nothing(node: Node) -> None:
    before = {proxy.pid for proxy in node.proxies()}
    with load(node) as went:
        assert node.meshctl("proxies", "replace").output == "proxies replaced\n"
        node.eventually(node.is_well, "the new proxies have everything")
    assert not before & {proxy.pid for proxy in node.proxies()}
    assert went[0]["ok"] >= CLIENTS
    assert went[0]["failures"] == []


def test_traffic_flows_on_without_the_supervisor(node: Node) -> None:
    """The next one takes over the proxies and the resolver that run, and starts the roles anew."""

    def lasting() -> set[int]:
        resolvers = {child.pid for name, child in node.children().items() if name in RESOLVERS}
        return {proxy.pid for proxy in node.proxies()} | resolvers

    before = lasting()
    assert len(before) == 6
    with load(node) as went:
        kill(node, "supervisor")
        node.wait_supervisor()
        node.start()
    assert went[0]["ok"] >= CLIENTS
    assert went[0]["failures"] == []
    assert before == lasting()


def test_without_all_roles_new_connections_are_made_too(node: Node) -> None:
    """None of the roles is on the data path; frozen, they are not even restarted."""

    def ask() -> None:
        assert len(node.answers("bob", "http", "server:80", 5, 20)) == 100
        assert len(node.answers("carol", "tcp", "server:91", 5, 20)) == 100

    ask()  # each proxy has used each identity once
    # Who resolves names is on the data path.
    names = node.children().keys() - RESOLVERS
    roles = [node.children()[name].pid for name in names if not Member.parse(name)]
    assert len(roles) == 4
    for pid in roles:
        os.kill(pid, signal.SIGSTOP)
    try:
        ask()
    finally:
        for pid in roles:
            os.kill(pid, signal.SIGCONT)
    node.eventually(node.is_well, "all is well again")


def test_all_processes_killed_at_once_come_back(node: Node) -> None:
    """All of meshd at once, as when memory runs out."""
    for pid in [child.pid for child in node.children().values()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.eventually(node.is_well, "all is back")
    assert len(node.answers("bob", "http", "server:80", 1)) == 1
