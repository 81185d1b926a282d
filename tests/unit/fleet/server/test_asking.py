"""What a server remembers of a node's requests is bounded, whatever the node asks for."""

from __future__ import annotations

from meshd.fleet.server.asking import MOST_TYPES, Asking
from meshd.xds.exchange import Request
from meshd.xds.resources import EMPTY
from meshd.xds.unordered import UnorderedStream


def test_a_node_that_asks_for_everything_is_heard() -> None:
    request = Request("t/a", subscribe=("*",), initial_versions={"one": "1"})
    assert Asking().bounded(request) == request


def test_names_of_single_resources_are_not_remembered() -> None:
    names = tuple(f"{number}" for number in range(1000))
    asking, stream = Asking(), UnorderedStream(EMPTY)
    for what in (Request("t/a", subscribe=("*", *names)), Request("t/a", unsubscribe=names)):
        heard = asking.bounded(what)
        assert heard
        assert not {*heard.subscribe, *heard.unsubscribe} & set(names)
        stream.receive(heard)


def test_versions_are_taken_once_for_each_type() -> None:
    asking = Asking()
    for number in range(3):
        heard = asking.bounded(Request("t/a", initial_versions={f"{number}": "1"}))
        assert heard
        assert bool(heard.initial_versions) is (number == 0)


def test_a_node_has_a_few_types() -> None:
    asking = Asking()
    heard = [asking.bounded(Request(f"t/{number}")) for number in range(MOST_TYPES + 10)]
    assert len(list(filter(None, heard))) == MOST_TYPES
    assert asking.bounded(Request("t/0", nonce="1"))
    assert Asking().bounded(Request("t/" + "x" * 1000)) is None
