"""A node that cannot start as it was told says why in a line, and the rest of it works."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from meshd import wire
from meshd.proxy.binary import find
from meshd.resolver.command import NAMES as RESOLVERS
from meshd.settings import ProxySettings
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.node.node import Node

ROLES = {"capture", "identity", "mesh", "telemetry"}


@pytest.fixture
def fresh(make: Callable[..., Node]) -> Iterator[Node]:
    node = make()
    yield node
    node.close()


def problem(node: Node, name: str) -> str:
    """What the supervisor says of a child."""
    with contextlib.suppress(Exception):
        answer = node.ask("supervisor", wire.Children())
        if isinstance(answer, wire.ChildStates):
            return next((each.problem for each in answer.children if each.name == name), "")
    return ""


def restarts(node: Node, name: str) -> int:
    with contextlib.suppress(Exception):
        answer = node.ask("supervisor", wire.Children())
        if isinstance(answer, wire.ChildStates):
            return next((each.restarts for each in answer.children if each.name == name), 0)
    return 0


def runs(node: Node, names: set[str]) -> bool:
    with contextlib.suppress(Exception):
        return names <= node.children().keys()
    return False


@pytest.mark.parametrize("kind", ["missing", "not a program", "old"])
def test_an_envoy_that_cannot_be_used(fresh: Node, kind: str) -> None:
    binary = fresh.home / "envoy"
    if kind == "not a program":
        binary.write_text("nonsense")
        binary.chmod(0o755)
    elif kind == "old":
        version = "envoy  version: 0123456789abcdef/1.18.2/Clean/RELEASE/BoringSSL"
        binary.write_text(f"#!/bin/sh\necho '{version}'\n")
        binary.chmod(0o755)
    fresh.write_settings(proxy={"binary": str(binary)})
    fresh.launch()
    line = fresh.eventually(lambda: problem(fresh, "proxy-0"), "it says what is wrong")
    assert "\n" not in line
    assert str(binary) in line
    fresh.eventually(lambda: runs(fresh, ROLES), "the roles run")
    space = fresh.write.dump(fresh.write.namespace("mesh", enrolled=True))
    fresh.eventually(
        lambda: fresh.meshctl("apply", "-f", "-", text=space).status == 0, "the mesh role answers"
    )
    done = fresh.meshctl("status")
    assert done.status == 1
    assert str(binary) in done.output + done.errors
    assert fresh.log.count(str(binary)) < 40  # it does not spin


def test_an_envoy_that_is_there_again_is_used(fresh: Node) -> None:
    binary = fresh.home / "envoy"
    fresh.write_settings(proxy={"binary": str(binary)})
    fresh.launch()
    fresh.eventually(lambda: problem(fresh, "proxy-0"), "it says what is wrong")
    binary.symlink_to(find(ProxySettings()))
    fresh.eventually(fresh.is_well, "the proxies run")


def test_a_metrics_port_that_is_taken(fresh: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fresh.write_settings(telemetry={"port": port})
        fresh.launch()
        line = fresh.eventually(lambda: problem(fresh, "telemetry"), "it says what is wrong")
        assert str(port) in line
        fresh.eventually(lambda: runs(fresh, ROLES - {"telemetry"}), "all others run")
    fresh.eventually(fresh.is_well, "it starts when the port is free")


def test_a_dns_port_that_is_taken(fresh: Node) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        fresh.write_settings(mesh={"dns_port": port})
        fresh.launch()
        line = fresh.eventually(lambda: problem(fresh, "resolver"), "it says what is wrong")
        assert "Address already in use" in line
        fresh.eventually(lambda: runs(fresh, ROLES | {"proxy-0", "proxy-1"}), "all others run")
        fresh.eventually(lambda: fresh.meshctl("status").status == 1, "it is told")
    fresh.eventually(lambda: runs(fresh, {"resolver"}), "it starts when the port is free")


WITHOUT_DNSMASQ = 'mount --bind /dev/null "$(readlink -f /usr/sbin/dnsmasq)" && exec "$@"'


def test_without_dnsmasq_all_else_works_and_the_package_is_named_once_for_each_use(
    fresh: Node,
) -> None:
    fresh.prefix = ("unshare", "--mount", "sh", "-c", WITHOUT_DNSMASQ, "sh")
    fresh.launch()
    fresh.eventually(lambda: runs(fresh, ROLES | {"proxy-0", "proxy-1"}), "all others run")
    for name in RESOLVERS:
        fresh.eventually(lambda name=name: restarts(fresh, name) > 3, "it is tried again")
        assert "dnsmasq-base" in problem(fresh, name)
    assert fresh.log.count("dnsmasq-base") == len(RESOLVERS)


BAD = {
    "nonsense": ("}{", "meshd.yaml"),
    "proxy: {cuont: 3}": ("proxy: {cuont: 3}", "cuont"),
    "proxy: {count: many}": ("proxy: {count: many}", "count"),
    "user: nobody-there": ("user: nobody-there", "nobody-there"),
}


@pytest.mark.parametrize("what", BAD)
def test_settings_that_are_wrong(fresh: Node, what: str) -> None:
    text, named = BAD[what]
    fresh.paths.settings.write_text(text)
    fresh.launch()
    assert fresh.wait_supervisor() == 1
    (line,) = fresh.log.strip().splitlines()
    assert named in line


def test_a_second_node_in_the_same_place_is_refused(node: Node) -> None:
    done = subprocess.run(
        list(node.start_command),
        env={**os.environ, "MESHD_HOME": str(node.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert str(node.supervisor_pid) in line
    node.eventually(node.is_well, "all is well")


SOON = 5.0
"""Seconds in which a node ends."""
LATE = 15.0
"""Seconds by which a machine that has too much to do may delay it."""


def test_it_ends_within_five_seconds_with_pods_in_it(fresh: Node) -> None:
    fresh.start()
    write = fresh.write
    fresh.up(write.dump(write.namespace("mesh", enrolled=True), write.deployment("alice")))
    began = time.monotonic()
    os.kill(fresh.supervisor_pid, signal.SIGTERM)
    assert fresh.wait_supervisor() == 0
    assert time.monotonic() - began < SOON + LATE
    fresh.start()
    assert len(fresh.statuses().workloads) == 1


def test_what_a_version_with_one_user_for_all_roles_has_left_holds_up_none(
    make: Callable[..., Node],
) -> None:
    node = make()
    user = pwd.getpwnam("meshd")
    node.paths.run.mkdir(parents=True)
    (node.paths.run / "server").mkdir()
    for name in ("telemetry.port", "control.port", "identities.json"):
        (node.paths.run / name).write_text("[]", encoding="ascii")
    for path in node.paths.run.iterdir():
        os.chown(path, user.pw_uid, user.pw_gid)
    node.start()
    running = node.children()
    assert running.keys() >= ROLES
    assert not any(running[name].restarts for name in ROLES)
    node.close()
