"""A server counts what a node says that it uses, whatever it has acknowledged before."""

from __future__ import annotations

from meshd.fleet.server.in_force import IN_FORCE, NOTHING_YET, InForce
from meshd.xds.exchange import Request


def said(nonce: str) -> Request:
    return Request(IN_FORCE, nonce=nonce)


def test_a_node_that_says_nothing_uses_what_it_acknowledges() -> None:
    one = InForce()
    one.sent("1")
    assert not one.hears(Request("test/v1/Thing", nonce="1"))
    assert one.is_newest


def test_only_the_newest_response_counts() -> None:
    one = InForce()
    assert one.hears(said(""))
    assert one.is_newest
    one.sent("1")
    one.sent("2")
    assert not one.is_newest
    one.hears(said("1"))
    assert not one.is_newest
    one.hears(said("2"))
    assert one.is_newest
    one.sent("3")
    assert not one.is_newest


def test_a_node_may_still_have_to_use_what_it_had_before() -> None:
    one = InForce()
    one.hears(said(NOTHING_YET))
    assert not one.is_newest
    one.hears(said(""))
    assert one.is_newest
    one.hears(said("x" * 100_000))
    assert not one.is_newest
