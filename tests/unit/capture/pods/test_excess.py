"""When a workload whose probes fail is let past the proxy, where the policy is to fail open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from meshd.capture.pods import excess

SILENCE = (
    "ipv4 probe: no answer within 2 s; its traffic does not reach the proxy, or a rule drops it"
)
REFUSED = "ipv4 probe: redirected, but no proxy listens in the namespace"
HUNG_UP = (
    "ipv4 probe: the proxy closed the connection without an answer; it may not have "
    "its listeners yet"
)


def said(problem: str, *, again: str = "", counts: tuple[int, int] = (0, 0)) -> str:
    counted: Iterator[int] = iter(counts)

    async def ask() -> str:
        return again

    async def count() -> int:
        return next(counted)

    return asyncio.run(excess.own_doing(problem, ask, count))


def test_where_no_proxy_listens_it_is_let_past() -> None:
    assert said(REFUSED) == ""


def test_where_a_proxy_is_silent_and_nothing_was_too_much_it_is_let_past() -> None:
    assert said(SILENCE, again=SILENCE, counts=(7, 7)) == ""


def test_where_no_proxy_listens_any_more_by_then_it_is_let_past() -> None:
    assert said(SILENCE, again=REFUSED) == ""


def test_a_workload_with_too_many_connections_is_told_and_not_let_past() -> None:
    assert excess.TOO_MANY in said(SILENCE, again=SILENCE, counts=(7, 8))


@pytest.mark.parametrize("again", ["", HUNG_UP])
def test_a_workload_whose_probe_is_answered_after_all_is_not_let_past_the_proxy(again: str) -> None:
    assert "not let past" in said(SILENCE, again=again)


def test_a_workload_that_a_living_proxy_refuses_is_not_let_past() -> None:
    """It has as many connections open as it may."""
    assert said(HUNG_UP).startswith(HUNG_UP)


def test_excess_connections_are_counted_by_port() -> None:
    saved = """*mangle
:MESHD_INPUT - [0:0]
[9:540] -A MESHD_INPUT -p tcp -m tcp --dport 15001 --tcp-flags SYN SYN -m limit -j RETURN
[5:300] -A MESHD_INPUT -p tcp -m tcp --dport 15001 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
[3:180] -A MESHD_INPUT -p tcp -m tcp --dport 15006 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
[8:480] -A INPUT -p tcp -m tcp --dport 15001 -j DROP
COMMIT
"""
    assert excess.sum_of([saved, saved], 15001) == 10
