"""What is read from the kernel's answers about tracked connections."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.capture.probes.conntrack import Connections, End, Flow
from meshd.capture.rules import nfnetlink
from meshd.capture.rules.nfnetlink import attribute, nest

CLIENT, SERVICE, PROXY = End("198.18.0.1", 4000), End("198.18.0.2", 80), End("198.18.0.2", 15006)
STRANGER = End("198.18.0.9", 4000)
FLOW = Flow(CLIENT, SERVICE)
_NEW, _DONE = 1 << 8, 3
_HEADER = struct.Struct("=IHHII")


def half(kind: int, source: End, destination: End) -> bytes:
    addresses = b"".join(
        attribute(which, socket.inet_aton(end.address))
        for which, end in ((1, source), (2, destination))
    )
    ports = b"".join(
        attribute(which, struct.pack(">H", end.port))
        for which, end in ((2, source), (3, destination))
    )
    return nest(kind, nest(1, addresses) + nest(2, attribute(1, b"\x06") + ports))


def tracked(source: End, answerer: End, state: int = 1) -> tuple[int, bytes]:
    of_protocol = nest(4, nest(1, attribute(1, bytes([state]))))
    return _NEW, bytes(4) + half(1, source, SERVICE) + half(2, answerer, source) + of_protocol


def refused(code: int) -> tuple[int, bytes]:
    return nfnetlink.ERROR, struct.pack("=i", -code)


class Kernel(socket.socket):
    """It answers each question with what is next."""

    def __init__(self, answers: Sequence[Sequence[tuple[int, bytes]]]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.pending: list[bytes] = []

    def send(self, data: Any, flags: int = 0, /) -> int:
        number = _HEADER.unpack_from(data)[3]
        for kind, body in self.answers.pop(0):
            header = _HEADER.pack(_HEADER.size + len(body), kind, 0, number, 0)
            self.pending.append(header + body)
        return len(data)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return self.pending.pop(0)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sequence[tuple[int, bytes]]]]:
    answers: list[Sequence[tuple[int, bytes]]] = []
    monkeypatch.setattr(nfnetlink, "asking_socket", lambda: Kernel(answers))
    yield answers


def test_the_whole_table_is_read_and_the_next_question_has_its_own_answer(
    answering: list[Sequence[tuple[int, bytes]]],
) -> None:
    table = [tracked(CLIENT, PROXY), tracked(STRANGER, SERVICE), (_DONE, bytes(4))]
    answering += [table, [tracked(CLIENT, PROXY)]]
    connections = Connections()
    assert connections.answerers_from(FLOW) == [PROXY, SERVICE]
    assert connections.answerer(FLOW) == PROXY
    connections.close()


@pytest.mark.parametrize(
    ("state", "ours"), [(1, True), (2, True), (3, False), (7, False), (8, True)]
)
def test_a_connection_that_came_about_is_not_the_probe(
    answering: list[Sequence[tuple[int, bytes]]], state: int, ours: bool
) -> None:
    answering += [[tracked(STRANGER, SERVICE, state), (_DONE, bytes(4))]]
    connections = Connections()
    assert connections.answerers_from(FLOW) == [SERVICE] * ours
    connections.close()


def test_leftovers_of_an_earlier_query_are_skipped(
    answering: list[Sequence[tuple[int, bytes]]],
) -> None:
    answering += [[refused(errno.EBUSY), tracked(CLIENT, SERVICE)], [tracked(CLIENT, PROXY)]]
    connections = Connections()
    with pytest.raises(SystemRefusedError):
        connections.answerer(FLOW)
    assert connections.answerer(FLOW) == PROXY
    connections.close()


def test_a_table_that_cannot_be_read_is_not_an_empty_one(
    answering: list[Sequence[tuple[int, bytes]]],
) -> None:
    answering += [[refused(errno.EPERM)]]
    connections = Connections()
    with pytest.raises(SystemRefusedError):
        connections.answerers_from(FLOW)
    connections.close()
