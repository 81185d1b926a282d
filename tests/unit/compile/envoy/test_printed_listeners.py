"""Listeners that are put together from parts are the message in one piece."""

from __future__ import annotations

from meshd.compile.envoy.listeners import listener
from meshd.compile.envoy.printed_listeners import PrintedListener, printed_choice
from meshd.compile.plan.chains import Chain, Tcp
from meshd.compile.plan.choices import ByAddress, ByPort, To
from meshd.compile.plan.listeners import Listener

CHOICE = ByPort({80: ByAddress({"198.18.1.1": To("one")}, To("rest")), 81: To("one")})


def plan(name: str, choice: ByPort = CHOICE) -> Listener:
    target = Tcp(statistics=name, upstreams=(("one", 1),))
    chains = (Chain(name="one", target=target), Chain(name="rest", target=target))
    return Listener(name=name, statistics="scope", patience=1.0, choice=choice, chains=chains)


def printed(one: Listener) -> PrintedListener:
    assert one.choice is not None
    return PrintedListener.of(one, printed_choice(one.choice))


def test_the_parts_are_the_message() -> None:
    assert printed(plan("outbound@shop")).message() == listener(plan("outbound@shop"))


def test_the_choice_is_there_once_for_all_listeners_that_have_it() -> None:
    choice = printed_choice(CHOICE)
    found = [PrintedListener.of(plan(name), choice) for name in ("outbound@one", "outbound@two")]
    assert [one.message() for one in found] == [listener(plan(one.name)) for one in found]
    assert found[0].choice is found[1].choice


def test_versions_are_equal_exactly_when_the_bytes_are() -> None:
    other = ByPort({80: To("rest")})
    plans = [plan("a"), plan("b"), plan("a", other)]
    assert len({printed(one).version for one in plans}) == len(plans)
    assert printed(plan("a")).version == printed(plan("a")).version
