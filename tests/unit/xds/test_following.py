"""New listeners that take connections come when the client has what is behind them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from meshd.xds.exchange import Request, Response
from meshd.xds.resources import CLUSTER, LISTENER, ROUTES, Resource, Resources
from meshd.xds.stream import Stream


def _published(
    *own: str, shared: str = "1", tables: Iterable[str] = (), version: str = "1"
) -> Resources:
    return Resources.of(
        [
            Resource(CLUSTER, "c", "1", b""),
            Resource(LISTENER, "shared", shared, b"", internal=True),
            *(Resource(LISTENER, name, version, b"") for name in own),
            *(Resource(ROUTES, name, "1", b"") for name in tables),
        ]
    )


def _told(response: Response | None) -> list[str]:
    return [one.name for one in response.resources] if response else []


def _answer(stream: Stream, response: Response | None, error: str | None = None) -> None:
    assert response
    stream.receive(Request(response.type_url, nonce=response.nonce, error=error))


def _client(*own: str) -> Stream:
    """It has these listeners, and the table "80" of the shared one."""
    stream = Stream(_published(*own, tables=["80"]))
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    _answer(stream, stream.next())
    response = stream.next()
    assert _told(response) == sorted([*own, "shared"])  # all at once: it has none yet
    stream.receive(Request(ROUTES, subscribe=("80",)))
    _answer(stream, response)
    table = stream.next()
    assert _told(table) == ["80"]
    _answer(stream, table)
    assert stream.synced
    return stream


def test_a_new_listener_follows_the_one_behind_it_and_the_table_that_it_asks_for() -> None:
    stream = _client("a")
    stream.replace(_published("a", "b", shared="2", tables=["80", "81"]))
    shared = stream.next()
    assert _told(shared) == ["shared"]
    assert stream.next() is None
    stream.receive(Request(ROUTES, subscribe=("81",)))
    _answer(stream, shared)
    table = stream.next()
    assert _told(table) == ["81"]
    assert stream.next() is None
    assert not stream.settled
    _answer(stream, table)
    new = stream.next()
    assert _told(new) == ["b"]
    _answer(stream, new)
    assert stream.synced


def test_a_new_listener_waits_for_no_table_that_is_not_there_or_is_refused() -> None:
    stream = _client("a")
    stream.replace(_published("a", "b", shared="2", tables=["80", "81"]))
    shared = stream.next()
    stream.receive(Request(ROUTES, subscribe=("81", "none")))
    _answer(stream, shared)
    for name in ("81", "none"):
        table = stream.next()
        assert {*_told(table), *(table.removed if table else ())} == {name}
        _answer(stream, table, "bad" if name == "81" else None)
    assert _told(stream.next()) == ["b"]


def test_a_new_listener_does_not_wait_for_what_is_published_later() -> None:
    stream = _client("a")
    stream.replace(_published("a", "b", shared="2", tables=["80"]))
    shared = stream.next()
    stream.replace(_published("a", "b", "c", shared="3", tables=["80"]))
    _answer(stream, shared)
    both = stream.next()
    assert _told(both) == ["b", "shared"]
    _answer(stream, both)
    assert _told(stream.next()) == ["c"]


def test_a_new_listener_does_not_wait_for_one_that_is_refused() -> None:
    stream = _client("a")
    stream.replace(_published("a", "b", shared="2", tables=["80"]))
    _answer(stream, stream.next(), "bad")
    assert _told(stream.next()) == ["b"]


def test_a_listener_that_changes_does_not_wait() -> None:
    stream = _client("a")
    stream.replace(_published("a", "b", shared="2", tables=["80"], version="2"))
    assert _told(stream.next()) == ["a", "shared"]


def test_a_new_listener_with_nothing_new_behind_it_comes_at_once() -> None:
    stream = _client("a")
    stream.replace(_published("a", "b", tables=["80"]))
    assert _told(stream.next()) == ["b"]


def test_a_client_that_comes_back_is_told_in_this_order_too() -> None:
    stream = Stream(_published("a", "b", shared="2", tables=["80", "81"]))
    stream.receive(Request(CLUSTER, initial_versions={"c": "1"}))
    stream.receive(Request(LISTENER, initial_versions={"a": "1", "shared": "1"}))
    stream.receive(Request(ROUTES, subscribe=("80",), initial_versions={"80": "1"}))
    assert _told(stream.next()) == ["shared"]
    assert stream.next() is None


def test_a_listener_that_changes_follows_one_that_is_new_since_it_may_lead_there() -> None:
    stream = _client("a")
    other = Resource(LISTENER, "other", "1", b"", internal=True)
    after = _published("a", tables=["80", "81"], version="2")
    stream.replace(
        Resources({**after.by_type, LISTENER: {**after.of_type(LISTENER), "other": other}})
    )
    first = stream.next()
    assert _told(first) == ["other"]
    stream.receive(Request(ROUTES, subscribe=("81",)))
    _answer(stream, first)
    _answer(stream, table := stream.next())
    assert _told(table) == ["81"]
    assert _told(stream.next()) == ["a"]


def _pair(version: str, *left: str, tables: Iterable[str] = ()) -> Resources:
    """A listener that leaves some connections to the one behind it, and that one."""
    return Resources.of(
        [
            Resource(CLUSTER, "c", "1", b""),
            Resource(
                LISTENER,
                "front",
                version,
                b"",
                internal=True,
                behind="behind",
                left=frozenset(left),
            ),
            Resource(LISTENER, "behind", version, b"", internal=True),
            *(Resource(ROUTES, name, "1", b"") for name in tables),
        ]
    )


def _has_pair(*left: str) -> Stream:
    stream = Stream(_pair("1", *left))
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    _answer(stream, stream.next())
    response = stream.next()
    assert _told(response) == ["behind", "front"]
    _answer(stream, response)
    assert stream.synced
    return stream


@pytest.mark.parametrize(
    ("before", "after", "order"),
    [
        ((), ("80",), ["behind", "front"]),
        (("80",), (), ["front", "behind"]),
        (("80",), ("80",), ["behind", "front"]),
        (("80",), ("81",), ["behind", "front"]),
        (("80", "81"), ("81",), ["front", "behind"]),
    ],
)
def test_of_two_listeners_the_one_comes_first_that_knows_what_the_other_will_not(
    before: tuple[str, ...], after: tuple[str, ...], order: list[str]
) -> None:
    stream = _has_pair(*before)
    stream.replace(_pair("2", *after, tables=["80"]))
    first = stream.next()
    stream.receive(Request(ROUTES, subscribe=("80",)))
    _answer(stream, first)
    _answer(stream, table := stream.next())
    assert _told(table) == ["80"]  # which the first one may wait for
    second = stream.next()
    assert [_told(first), _told(second)] == [[one] for one in order]
    _answer(stream, second)
    assert stream.synced


@pytest.mark.parametrize("after", [(), ("80", "81")])
def test_the_second_one_does_not_wait_for_the_first_if_that_is_refused(
    after: tuple[str, ...],
) -> None:
    stream = _has_pair("80")
    stream.replace(_pair("2", *after))
    first = stream.next()
    _answer(stream, first, "bad")
    assert {*_told(first), *_told(stream.next())} == {"behind", "front"}


def test_a_client_that_comes_back_is_told_of_the_one_behind_first() -> None:
    stream = Stream(_pair("2"))
    stream.receive(Request(CLUSTER, initial_versions={"c": "1"}))
    stream.receive(Request(LISTENER, initial_versions={"front": "1", "behind": "1"}))
    assert _told(stream.next()) == ["behind"]
