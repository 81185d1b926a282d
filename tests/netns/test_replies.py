"""The mark of accepted sockets: what it does to replies, what others may do, what is put back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules import apply, inside, replies
from meshd.capture.rules.options import CaptureOptions
from meshd.model.interception import PROXY_INBOUND_MARK
from tests.waiting import PATIENCE, eventually

SYSCTL = "net.ipv4.tcp_fwmark_accept"
RULE = ("fwmark", "0x53a/0xfff", "lookup", "15100")
PORT = 9080


def value(host: Any) -> str:
    return host.run("sysctl", "-n", SYSCTL).strip()


def rules(host: Any) -> str:
    return "".join(host.run("ip", version, "rule") for version in ("-4", "-6"))


@pytest.fixture
def captured(network: Any, backend: str) -> Any:
    assert network.apply(CaptureOptions(backend=backend)).replies == ""
    assert value(network.workload) == "1"
    return network


@contextlib.contextmanager
def proxied(
    network: Any, addresses: dict[str, str], port: int = PORT
) -> Generator[tuple[socket.socket, Any]]:
    """A connection of the proxy to the application, from the client's own address; both ends."""
    workload = network.workload
    with (
        workload.listen(addresses["workload"], port) as application,
        workload.connect(
            addresses["workload"], port, source=addresses["peer"], mark=PROXY_INBOUND_MARK
        ) as upstream,
        application.accept() as served,
    ):
        yield upstream, served


def mark(served: Any) -> int:
    return served.socket.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)


def talk(ends: tuple[socket.socket, Any]) -> None:
    """More than one segment each way, since the first is easier to bring back than the others."""
    upstream, served = ends
    for text in (b"question", b"another"):
        upstream.sendall(text)
        assert served.socket.recv(64) == text
        served.socket.sendall(text.upper())
        assert upstream.recv(64) == text.upper()


def test_replies_carry_the_mark_of_the_connection(captured: Any, addresses: dict[str, str]) -> None:
    """And need none of the rules that route them a second time."""
    for program in ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"):
        with contextlib.suppress(subprocess.CalledProcessError):
            captured.workload.run(program, "-t", "mangle", "-F", "MESHD_OUTPUT")
    with proxied(captured, addresses) as ends:
        assert mark(ends[1]) == PROXY_INBOUND_MARK
        talk(ends)


def _sysctl_off(host: Any, _: str) -> None:
    host.run("sysctl", "-qw", f"{SYSCTL}=0")


def _rule_gone(host: Any, version: str) -> None:
    host.run("ip", version, "rule", "del", *RULE)


def _rule_overtaken(host: Any, version: str) -> None:
    """A rule of somebody else's leads replies out before ours is asked."""
    _rule_gone(host, version)
    host.run("ip", version, "rule", "add", "pref", "0", "to", "all", "lookup", "main")
    host.run("ip", version, "rule", "add", "pref", "0", *RULE)


@pytest.mark.parametrize("break_it", [_sysctl_off, _rule_gone, _rule_overtaken])
def test_no_reply_is_lost_whatever_others_undo(
    captured: Any, addresses: dict[str, str], break_it: Any
) -> None:
    with proxied(captured, addresses) as before:
        talk(before)
        break_it(captured.workload, "-6" if ":" in addresses["any"] else "-4")
        talk(before)
    with proxied(captured, addresses) as after:
        talk(after)


@pytest.mark.parametrize("broken", [False, True])
def test_a_closed_port_is_refused_at_once(
    captured: Any, addresses: dict[str, str], broken: bool
) -> None:
    if broken:
        _sysctl_off(captured.workload, "")
    with pytest.raises(ConnectionRefusedError):
        captured.workload.connect(
            addresses["workload"], PORT, source=addresses["peer"], mark=PROXY_INBOUND_MARK
        )


def _former_rules(host: Any, backend: str) -> None:
    """As an earlier version writes them, which knows nothing of the rest."""
    former = "-p tcp -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark"
    for program in ("iptables", "ip6tables"):
        where = (f"{program}-{backend}", "-t", "mangle", "-R", "MESHD_OUTPUT", "1")
        host.run(*where, *former.split(), "--nfmask", "0xfff", "--ctmask", "0xfff")


def test_connections_outlive_an_upgrade_and_a_downgrade(
    captured: Any, addresses: dict[str, str], backend: str
) -> None:
    host = captured.workload
    _former_rules(host, backend)
    _sysctl_off(host, "")
    for version in ("-4", "-6"):
        _rule_gone(host, version)
    with proxied(captured, addresses) as older:
        assert mark(older[1]) == 0
        assert captured.apply(CaptureOptions(backend=backend)).replies == ""
        talk(older)
        with proxied(captured, addresses, PORT + 1) as newer:
            assert mark(newer[1]) == PROXY_INBOUND_MARK
            talk(newer)
            _former_rules(host, backend)
            talk(older)
            talk(newer)


@pytest.mark.parametrize("former", ["0", "1"])
def test_removal_puts_the_former_value_back(network: Any, backend: str, former: str) -> None:
    host = network.workload
    host.run("sysctl", "-qw", f"{SYSCTL}={former}")
    options = CaptureOptions(backend=backend)
    assert network.apply(options).steps
    assert value(host) == "1"
    assert network.apply(options).steps == ()
    network.inside(apply.remove)
    assert value(host) == former
    assert "0x53a" not in rules(host)


def _die_after(count: int, action: Any) -> None:
    """Take so many steps about replies, and die by SIGKILL before the next one."""
    taken = iter(range(count))
    take = replies.take

    def take_or_die(step: Any) -> None:
        if next(taken, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        take(step)

    replies.take = take_or_die
    action()


@pytest.mark.parametrize("count", range(3))
def test_the_former_value_survives_a_kill_at_any_step(network: Any, count: int) -> None:
    host = network.workload
    write = functools.partial(apply.apply, CaptureOptions())
    for action in (write, apply.remove):
        with contextlib.suppress(SystemRefusedError):
            network.inside(functools.partial(_die_after, count, action))
    network.inside(apply.remove)
    assert value(host) == "0"
    assert "0x53a" not in rules(host)
    with contextlib.suppress(SystemRefusedError):
        network.inside(functools.partial(_die_after, count, write))
    assert network.apply(CaptureOptions()).replies == ""
    assert value(host) == "1"


USERS = (
    ("ip rule add fwmark 1 lookup 200", "ip rule del fwmark 1 lookup 200", "fwmark 0x1"),
    # wg-quick writes it so.
    ("ip -6 rule add not fwmark 51820 table 51820", "ip -6 rule del table 51820", "fwmark 0xca6c"),
    (
        "nft add table inet own; add chain inet own in { type filter hook prerouting priority 0; };"
        " add rule inet own in meta mark set 1",
        "nft delete table inet own",
        "table inet own, chain in",
    ),
    (
        "iptables-legacy -t mangle -A PREROUTING -p tcp --dport 8443 -j TPROXY --on-port 8443"
        " --tproxy-mark 1",
        "iptables-legacy -t mangle -F PREROUTING",
        "-j TPROXY",
    ),
    (
        "ip6tables-nft -t filter -A OUTPUT -m mark --mark 0x8000 -j DROP",
        "ip6tables-nft -t filter -F OUTPUT",
        "-m mark --mark 0x8000",
    ),
)


@pytest.mark.parametrize(("command", "undoing", "words"), USERS)
def test_marks_are_left_alone_where_others_use_them(
    network: Any, command: str, undoing: str, words: str
) -> None:
    host, options = network.workload, CaptureOptions(backend="nft")
    host.run(*command.split())
    assert words in network.apply(options).replies
    assert value(host) == "0"
    host.run(*undoing.split())
    assert network.apply(options).replies == ""
    assert value(host) == "1"
    host.run(*command.split())
    assert words in network.apply(options).replies
    assert value(host) == "0"
    assert "0x53a" not in rules(host)
    assert network.apply(options).steps == ()


def test_a_read_only_proc_sys_is_no_reason_not_to_capture(
    network: Any, addresses: dict[str, str]
) -> None:
    code = (
        "from meshd.capture.rules import apply; from meshd.capture.rules.options import"
        " CaptureOptions as C; apply.apply(C()); again = apply.apply(C());"
        " print(again.replies, again.steps)"
    )
    read_only = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"
    script = f"{read_only}; exec {sys.executable} -c '{code}'"
    told = network.workload.run("unshare", "-m", "sh", "-ec", script)
    assert f"{SYSCTL} cannot be set" in told
    assert told.rstrip().endswith("()"), "the second time nothing is done"
    with proxied(network, addresses) as ends:
        assert mark(ends[1]) == 0
        talk(ends)


def test_a_pod_with_users_of_its_own_has_its_replies_marked_too() -> None:
    command = ["unshare", "--user", "--map-root-user", "--net", "sleep", str(10 * PATIENCE)]
    with subprocess.Popen(command) as pod:
        try:
            namespace = Path(f"/proc/{pod.pid}/ns/net")
            own = Path("/proc/self/ns/net").readlink()
            eventually(lambda: namespace.readlink() != own, "the pod has a namespace of its own")
            enter = ["nsenter", f"--net={namespace}"]
            subprocess.run([*enter, "ip", "link", "set", "lo", "up"], check=True)
            write = functools.partial(apply.apply, CaptureOptions())
            assert asyncio.run(inside.run(namespace, write)).replies == ""
            seen = subprocess.run([*enter, "sysctl", "-n", SYSCTL], capture_output=True, check=True)
            assert seen.stdout == b"1\n"
        finally:
            pod.kill()
