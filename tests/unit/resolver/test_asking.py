"""The question whether a name is known, against what listens at a real port."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.resolver.asking import is_found, knows, question

NAME = "web.shop.svc.mesh.test"
HEADER = struct.Struct(">6H")


def answer(asked: bytes, *, code: int = 0, answers: int = 1, number: int | None = None) -> bytes:
    (told,) = struct.unpack_from(">H", asked)
    return HEADER.pack(told if number is None else number, 0x8180 | code, 1, answers, 0, 0)


def ask(reply: Callable[[bytes], bytes | None]) -> bool:
    """What ``knows`` makes of what a server replies."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            if told := reply(data):
                self.transport.sendto(told, addr)

    async def scenario() -> bool:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Server, ("127.0.0.1", 0))
        try:
            return await knows(transport.get_extra_info("sockname")[1], NAME)
        finally:
            transport.close()

    return asyncio.run(scenario())


def test_a_resolver_that_answers_an_address_knows_the_name() -> None:
    assert ask(answer)


def no_such_name(asked: bytes) -> bytes:
    return answer(asked, code=3, answers=0)


def no_address(asked: bytes) -> bytes:
    return answer(asked, answers=0)


def anothers(asked: bytes) -> bytes:
    return answer(asked, number=HEADER.unpack_from(asked)[0] ^ 1)


def cut_short(asked: bytes) -> bytes:
    return answer(asked)[:8]


def silence(_: bytes) -> None:
    return None


@pytest.mark.parametrize("reply", [no_such_name, no_address, anothers, cut_short, silence])
def test_a_resolver_that_answers_anything_else_does_not_know_the_name(
    reply: Callable[[bytes], bytes | None],
) -> None:
    assert not ask(reply)


def test_a_resolver_that_does_not_run_does_not_know_the_name() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert not asyncio.run(knows(port, NAME))


def test_the_question_is_as_rfc_1035_has_it() -> None:
    expected = "000701000001000000000000037765620473686f700000010001"
    assert question(7, "web.shop.").hex() == expected


@given(st.binary(max_size=40), st.integers(0, 65535))
def test_no_bytes_raise_anything(data: bytes, number: int) -> None:
    assert is_found(data, number) in {True, False}
