"""Datagrams and a process that shares its port with another, real ones on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from meshd.supervisor.datagrams import turn_away

PATIENCE = 60.0
OTHER = """
import socket, sys
family, host, port = socket.AddressFamily(int(sys.argv[1])), sys.argv[2], int(sys.argv[3])
with socket.socket(family, socket.SOCK_DGRAM) as shared:
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    shared.bind((host, port))
    with socket.socket(family, socket.SOCK_DGRAM) as private:
        private.bind((host, 0))
        print(private.getsockname()[1], flush=True)
        for line in sys.stdin:
            one = private if line == "private\\n" else shared
            while True:
                try:
                    data, client = one.recvfrom(100, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                one.sendto(b"answer to " + data, client)
            print("answered", flush=True)
"""
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


class Pair:
    """This process and another one at the same port."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.family, self.host = family, HOSTS[family]
        self.ours = socket.socket(family, socket.SOCK_DGRAM)
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.ours.bind((self.host, 0))
        self.ours.setblocking(False)
        self.port = self.ours.getsockname()[1]
        self.other = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(int(family)), self.host, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.private = int(self._line())
        self._clients: list[socket.socket] = []

    def close(self) -> None:
        self.other.kill()
        self.other.communicate()
        for one in (self.ours, *self._clients):
            one.close()

    def _line(self) -> str:
        assert self.other.stdout
        return self.other.stdout.readline()

    def has_other_answer(self, which: str) -> None:
        """What it has received so far."""
        assert self.other.stdin
        self.other.stdin.write(f"{which}\n")
        self.other.stdin.flush()
        assert self._line() == "answered\n"

    def clients(self, count: int, port: int = 0) -> list[socket.socket]:
        """Each has sent something, from a port of its own."""
        made = [socket.socket(self.family, socket.SOCK_DGRAM) for _ in range(count)]
        self._clients += made
        for number, client in enumerate(made):
            client.settimeout(PATIENCE)
            client.sendto(b"%d" % number, (self.host, port or self.port))
        return made

    def received(self) -> int:
        """Of what was sent to the shared port, by this process."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self.ours.recv(100):
                count += 1
        return count


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with contextlib.closing(Pair(request.param)) as made:
        yield made


def test_datagrams_to_a_process_that_is_turned_away_from_reach_the_other(pair: Pair) -> None:
    pair.clients(100)
    assert 0 < pair.received() < 100, "the kernel shares them out"
    assert turn_away(pair.other.pid) == 1
    pair.clients(100)
    assert pair.received() == 100


def test_what_has_arrived_before_is_answered(pair: Pair) -> None:
    clients = pair.clients(100)
    elsewhere = 100 - pair.received()
    turn_away(pair.other.pid)
    pair.has_other_answer("shared")
    for client in clients:
        client.setblocking(False)
    answers = 0
    for number, client in enumerate(clients):
        with contextlib.suppress(BlockingIOError):
            assert client.recv(100) == b"answer to %d" % number
            answers += 1
    assert answers == elsewhere > 0


def test_sockets_that_nobody_shares_go_on(pair: Pair) -> None:
    turn_away(pair.other.pid)
    (client,) = pair.clients(1, pair.private)
    pair.has_other_answer("private")
    assert client.recv(100) == b"answer to 0"


def test_a_process_that_is_gone_is_told() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    with pytest.raises(OSError, match=os.strerror(3)):
        turn_away(gone.pid)
