"""A workload in a network namespace, a peer in another, a wire between them; removed afterwards."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import importlib
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from meshd.capture.rules import apply, inside
from meshd.capture.rules.options import CaptureOptions
from tests.waiting import PATIENCE

T = TypeVar("T")

V4 = {
    "any": "0.0.0.0",
    "workload": "198.18.71.2",
    "peer": "198.18.71.1",
    "elsewhere": "198.19.71.9",
}
V6 = {
    "any": "::",
    "workload": "fd00:198::71:2",
    "peer": "fd00:198::71:1",
    "elsewhere": "fd00:198:9::9",
}
MACS = {"workload": "02:00:00:00:71:02", "peer": "02:00:00:00:71:01"}
NEVER = 0.3
"""Seconds to wait for what must not come: a connection that is let through takes one thousandth."""


@dataclasses.dataclass(frozen=True)
class Host:
    """A namespace, and sockets opened in it."""

    name: str

    @property
    def netns(self) -> Path:
        return Path("/run/netns") / self.name

    def socket(self, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        with inside.entered(self.netns):
            opened = socket.socket(family, kind)
        opened.settimeout(PATIENCE)
        return opened

    def listen(self, address: str, port: int) -> Listener:
        """``address`` may be the family's any-address."""
        family = family_of(address)
        server = self.socket(family)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        return Listener(server)

    def can_connect(self, address: str, port: int) -> bool:
        """False when packets are dropped; other errors are errors."""
        client = self.socket(family_of(address))
        client.settimeout(NEVER)
        with client:
            try:
                client.connect((address, port))
            except TimeoutError:
                return False
            return True

    def connect(
        self, address: str, port: int, *, source: str = "", source_port: int = 0, mark: int = 0
    ) -> socket.socket:
        """``source`` may be anybody's address: bound transparently."""
        family = family_of(address)
        client = self.socket(family)
        if mark:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        if source:
            level, option = (0, 19) if family == socket.AF_INET else (41, 75)  # IP(V6)_TRANSPARENT
            client.setsockopt(level, option, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind((source, source_port))
        try:
            client.connect((address, port))
        except BaseException:
            client.close()
            raise
        return client

    def run(self, *command: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return done.stdout

    def ip(self, *commands: str) -> None:
        """All of them by one process."""
        subprocess.run(
            ["ip", "-n", self.name, "-batch", "-"],
            input="\n".join(commands),
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def save(self) -> str:
        """All tables of both kinds and families, without the dates and what packets count."""
        programs = [f"{ip}-{kind}-save" for ip in ("iptables", "ip6tables") for kind in KINDS]
        printed = "".join(f"== {program}\n{self.run(program)}" for program in programs)
        lines = [line for line in printed.splitlines() if not line.startswith("#")]
        return re.sub(r"\[\d+:\d+\]", "[0:0]", "\n".join(lines))


KINDS = ("nft", "legacy")


class Listener:
    """A listening socket in some namespace."""

    def __init__(self, server: socket.socket) -> None:
        self.socket = server

    def accept(self) -> Accepted:
        """The next connection; TimeoutError when none comes."""
        accepted, peer = self.socket.accept()
        accepted.settimeout(PATIENCE)
        return Accepted(accepted, original_destination(accepted), peer[0])

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@dataclasses.dataclass(frozen=True)
class Accepted:
    socket: socket.socket
    original: tuple[str, int]
    """What the client wanted to reach."""
    client: str

    def __enter__(self) -> Accepted:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def original_destination(accepted: socket.socket) -> tuple[str, int]:
    """SO_ORIGINAL_DST; the socket's own address where nothing was redirected."""
    try:
        if accepted.family == socket.AF_INET:
            port, address = struct.unpack_from("!2xH4s", accepted.getsockopt(0, 80, 16))
        else:
            port, address = struct.unpack_from("!2xH4x16s", accepted.getsockopt(41, 80, 28))
    except OSError:
        return accepted.getsockname()[:2]
    return socket.inet_ntop(accepted.family, address), port


@dataclasses.dataclass(frozen=True)
class Network:
    workload: Host
    peer: Host

    def apply(self, options: CaptureOptions) -> apply.Outcome:
        return self.inside(functools.partial(apply.apply, options))

    def inside(self, action: Callable[[], T]) -> T:
        """Do it in the workload's namespace, in a child."""
        return asyncio.run(inside.run(self.workload.netns, action))


@pytest.fixture
def network() -> Iterator[Network]:
    with_pid = f"mcap{os.getpid()}"
    made = Network(Host(f"{with_pid}w"), Host(f"{with_pid}p"))
    try:
        for host in (made.workload, made.peer):
            subprocess.run(["ip", "netns", "add", host.name], check=True, timeout=PATIENCE)
        made.workload.ip(
            f"link add eth0 address {MACS['workload']}"
            f" type veth peer eth0 address {MACS['peer']} netns {made.peer.name}",
            *_connected("workload", "peer"),
            # Everything that leaves the workload arrives at the peer, whatever its address.
            f"route add default via {V4['peer']}",
            f"route add ::/0 via {V6['peer']}",
        )
        made.peer.ip(
            *_connected("peer", "workload"),
            f"address add {V4['elsewhere']}/32 dev lo",
            f"address add {V6['elsewhere']}/128 dev lo nodad",
        )
        yield made
    finally:
        for host in (made.workload, made.peer):
            subprocess.run(["ip", "netns", "del", host.name], check=False, capture_output=True)


def _connected(own: str, other: str) -> Iterator[str]:
    yield "link set lo up"
    yield "link set eth0 up"
    for addresses, length in ((V4, 24), (V6, 112)):
        yield f"address add {addresses[own]}/{length} dev eth0 {nodad(addresses)}"
        # Known in advance: finding a neighbour takes IPv6 a second or more on a fresh link.
        yield f"neigh replace {addresses[other]} lladdr {MACS[other]} dev eth0"


def nodad(addresses: dict[str, str]) -> str:
    return "nodad" if ":" in addresses["any"] else ""


@pytest.fixture(params=KINDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "legacy":
        importlib.import_module("meshd.capture.rules.legacy")  # once, rather than in each child
    return request.param


@pytest.fixture(params=[V4, V6], ids=["ipv4", "ipv6"])
def addresses(request: pytest.FixtureRequest) -> dict[str, str]:
    return request.param
