from __future__ import annotations

import asyncio
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.capture.pods import names
from meshd.capture.rules.options import CaptureOptions


def test_a_query_that_is_lost_opens_nothing() -> None:
    gate = names.Gate()
    for _ in range(5):
        assert not gate.judge("lost")
        assert not gate.judge("")
    assert not gate.is_open


def test_what_stays_dead_is_opened_once_and_closed_at_the_first_answer() -> None:
    gate = names.Gate()
    assert [gate.judge("dead") for _ in range(6)] == [False, False, False, True, False, False]
    assert gate.is_open
    assert gate.judge("")
    assert not gate.is_open
    assert not gate.judge("dead")


@given(st.lists(st.sampled_from(["", "dead"]), max_size=30))
def test_it_tells_each_change_and_nothing_else(answers: list[str]) -> None:
    gate, was = names.Gate(), False
    for answer in answers:
        assert gate.judge(answer) == (gate.is_open != was)
        was = gate.is_open
        assert not (was and not answer)


def test_all_but_queries_is_captured_as_before() -> None:
    network = ipaddress.ip_network("198.18.0.0/16")
    wanted = CaptureOptions(exclude_outbound_ports=(99, 7), exclude_outbound=(network,))
    opened = names.without_queries(wanted)
    assert (opened.dns, opened.exclude_outbound_ports) == (False, (7, 53, 99))
    assert opened.exclude_outbound == wanted.exclude_outbound
    assert names.Gate().options(wanted) is wanted
    assert names.Gate(is_open=True).options(wanted) == opened


class Answering(asyncio.DatagramProtocol):
    """Answers only from the ``after``-th query on."""

    def __init__(self, after: int) -> None:
        self._left = after
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._left -= 1
        if self._left <= 0 and self._transport:
            self._transport.sendto(data, addr)


@pytest.mark.parametrize(("after", "problem"), [(1, ""), (2, ""), (9, "not answered")])
def test_a_name_server_works_if_it_answers_one_of_several_questions(
    after: int, problem: str
) -> None:
    async def scenario() -> str:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Answering(after), local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        try:
            return await names.ask(port)
        finally:
            transport.close()

    told = asyncio.run(scenario())
    assert problem in told
    assert bool(told) == bool(problem)


def test_nobody_there_is_known_at_once() -> None:
    async def scenario() -> str:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        transport.close()
        await asyncio.sleep(0)
        return await names.ask(port)

    assert asyncio.run(scenario()) == "no proxy takes its DNS queries"
