"""Connections between nodes end as their two ends want, whichever way they take.

Envoy ends a request, and so a connection in a tunnel, as soon as its answer has ended: what of the
answer waits for its client is lost, and what the client sends after that. So only services that
say that tunnels suit them have any.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from meshd.capture.rules import inside
from tests.envoy.between.tunnels import MODE, UNSUITED, VIRTUAL, Nodes, two_nodes
from tests.waiting import PATIENCE

PORT: Final = 9002
TUNNEL: Final = VIRTUAL["second"]
MUCH: Final = 8 << 20
"""Bytes: more than all buffers on the way hold."""
LITTLE: Final = 256 << 10
End = Callable[[socket.socket], int]
"""What one end does; how many bytes it was sent."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with two_nodes(tmp_path_factory) as made:
        made.count_received(PORT)
        made.load(MODE % "STRICT")
        yield made


def play(nodes: Nodes, address: str, client: End, server: End) -> tuple[int, int]:
    """What client and server were sent, on a connection to a service's address."""
    before = nodes.received("second", PORT)
    with inside.entered(Path(nodes.far.hosts["second"].netns)):
        listener = socket.create_server(("0.0.0.0", PORT))
    with listener, ThreadPoolExecutor() as threads:
        serving = threads.submit(accepted, listener, server)
        with nodes.near.hosts["client"].connect(address, PORT) as connection:
            # Little is read ahead.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            seen = client(connection)
        found = seen, serving.result(PATIENCE)
    assert nodes.received("second", PORT) - before == (0 if address == TUNNEL else 1)
    return found


def accepted(listener: socket.socket, server: End) -> int:
    listener.settimeout(PATIENCE)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(PATIENCE)
        return server(connection)


def read(connection: socket.socket) -> int:
    count = 0
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            count += len(data)
    return count


def reads_then_sends(size: int) -> End:
    def end(connection: socket.socket) -> int:
        count = read(connection)
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"x" * size)
            connection.shutdown(socket.SHUT_WR)
        return count

    return end


def sends_then_reads(size: int) -> End:
    def end(connection: socket.socket) -> int:
        connection.sendall(b"x" * size)
        connection.shutdown(socket.SHUT_WR)
        return read(connection)

    return end


def sends_then_closes(size: int) -> End:
    def end(connection: socket.socket) -> int:
        connection.sendall(b"x" * size)
        return 0

    return end


def sends_while_it_reads(size: int) -> End:
    def end(connection: socket.socket) -> int:
        with ThreadPoolExecutor() as threads:
            sending = threads.submit(connection.sendall, b"x" * size)
            sending.add_done_callback(lambda _: connection.shutdown(socket.SHUT_WR))
            return read(connection)

    return end


def resets(connection: socket.socket) -> int:
    """Once it has heard from the other end. Before, a proxy would connect again."""
    count = len(connection.recv(1))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return count


def is_ended(connection: socket.socket) -> int:
    connection.sendall(b"x")
    return read(connection)


@pytest.mark.parametrize(
    ("client", "server", "expected"),
    [
        (sends_then_reads(MUCH), reads_then_sends(MUCH), (MUCH, MUCH)),
        (sends_then_closes(MUCH), reads_then_sends(0), (0, MUCH)),
        (reads_then_sends(MUCH), sends_then_reads(MUCH), (MUCH, MUCH)),
        (read, sends_then_closes(MUCH), (MUCH, 0)),
        (sends_while_it_reads(MUCH), sends_while_it_reads(MUCH), (MUCH, MUCH)),
    ],
    ids=["client first", "client closes", "server first", "server closes", "at once"],
)
def test_all_that_is_sent_arrives(
    nodes: Nodes, client: End, server: End, expected: tuple[int, int]
) -> None:
    assert play(nodes, UNSUITED, client, server) == expected


@pytest.mark.parametrize(
    ("client", "server", "expected"),
    [
        (sends_then_reads(MUCH), reads_then_sends(MUCH), (MUCH, MUCH)),
        (sends_then_closes(MUCH), reads_then_sends(0), (0, MUCH)),
        (read, sends_then_closes(LITTLE), (LITTLE, 0)),
    ],
    ids=["client first", "client closes", "server closes"],
)
def test_in_a_tunnel_all_arrives_that_is_sent_before_the_server_ends(
    nodes: Nodes, client: End, server: End, expected: tuple[int, int]
) -> None:
    assert play(nodes, TUNNEL, client, server) == expected


def test_in_a_tunnel_nothing_arrives_that_is_sent_after_the_server_has_ended(nodes: Nodes) -> None:
    """A limit of Envoy. Once this fails, tunnels may suit all services: see decision 31."""
    assert play(nodes, TUNNEL, reads_then_sends(8), sends_then_reads(8)) == (8, 0)


@pytest.mark.parametrize("address", [UNSUITED, TUNNEL], ids=["own connection", "tunnel"])
@pytest.mark.parametrize("client_resets", [True, False], ids=["client", "server"])
def test_a_reset_ends_the_other_end(nodes: Nodes, address: str, client_resets: bool) -> None:
    ends = (resets, is_ended) if client_resets else (is_ended, resets)
    assert play(nodes, address, *ends) == ((1, 0) if client_resets else (0, 1))
