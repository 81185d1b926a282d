"""Listeners that choose among tables come when the client has these, and tables go after them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pytest

from meshd.xds.exchange import Request, Response
from meshd.xds.resources import CHOOSABLE, CLUSTER, LISTENER, ROUTES, Resource, Resources
from meshd.xds.stream import Stream

Told = tuple[str, list[str], list[str]]
OWN: Final = "xdstp:///own/"
OTHERS: Final = "xdstp:///other/"
"""What the names of resources in two collections begin with."""


def _published(tables: Iterable[str], version: str) -> Resources:
    """``version``: of the listener that chooses among the tables."""
    return Resources.of(
        [
            Resource(CLUSTER, "c", "1", b""),
            Resource(LISTENER, "own", version, b""),
            *(Resource(CHOOSABLE, f"{OWN}{name}", "1", b"", table=name) for name in tables),
            *(Resource(CHOOSABLE, f"{OTHERS}{name}", "1", b"", table=name) for name in tables),
            *(Resource(ROUTES, name, "1", b"") for name in tables),
        ]
    )


def _told(response: Response | None) -> Told:
    assert response
    kind = response.type_url.rpartition(".")[2]
    names = ([one.name for one in response.resources], list(response.removed))
    come, gone = ([name.removeprefix(OWN) for name in those] for those in names)
    return kind, come, gone


def _answer(stream: Stream, response: Response | None, error: str | None = None) -> None:
    assert response
    stream.receive(Request(response.type_url, nonce=response.nonce, error=error))


@pytest.fixture
def stream() -> Stream:
    """Of a client that has the listener and one table."""
    made = Stream(_published(["80"], "1"))
    for kind in (CLUSTER, LISTENER):
        made.receive(Request(kind))
    _answer(made, made.next())
    listener = made.next()
    assert _told(listener) == ("Listener", ["own"], [])
    made.receive(Request(CHOOSABLE, subscribe=(f"{OWN}*",)))
    choice = made.next()
    assert _told(choice) == ("ScopedRouteConfiguration", ["80"], [])
    made.receive(Request(ROUTES, subscribe=("80",)))
    _answer(made, choice)
    for one in (made.next(), listener):
        _answer(made, one)
    assert made.synced
    return made


def test_a_listener_waits_for_the_tables_among_which_it_chooses(stream: Stream) -> None:
    stream.replace(_published(["80", "81"], "2"))
    choice = stream.next()
    assert _told(choice) == ("ScopedRouteConfiguration", ["81"], [])
    assert stream.next() is None
    _answer(stream, choice)
    assert stream.next() is None, "it has not asked for the table yet"
    stream.receive(Request(ROUTES, subscribe=("81",)))
    table = stream.next()
    assert _told(table) == ("RouteConfiguration", ["81"], [])
    assert stream.next() is None
    _answer(stream, table)
    assert _told(stream.next()) == ("Listener", ["own"], [])


@pytest.mark.parametrize("refused", ["choice", "table"])
def test_a_listener_does_not_wait_for_what_is_refused(stream: Stream, refused: str) -> None:
    stream.replace(_published(["80", "81"], "2"))
    choice = stream.next()
    stream.receive(Request(ROUTES, subscribe=("81",)))
    _answer(stream, choice, "bad" if refused == "choice" else None)
    _answer(stream, stream.next(), "bad" if refused == "table" else None)
    assert _told(stream.next()) == ("Listener", ["own"], [])


def test_a_table_goes_after_the_listener_that_chose_it(stream: Stream) -> None:
    stream.replace(_published([], "2"))
    listener = stream.next()
    assert _told(listener) == ("Listener", ["own"], [])
    assert stream.next() is None
    _answer(stream, listener)
    choice = stream.next()
    assert _told(choice) == ("ScopedRouteConfiguration", [], ["80"])
    assert stream.next() is None
    _answer(stream, choice)
    assert _told(stream.next()) == ("RouteConfiguration", [], ["80"])


def test_a_table_that_a_refused_listener_may_choose_does_not_keep_the_client_unsettled(
    stream: Stream,
) -> None:
    stream.replace(_published([], "2"))
    _answer(stream, stream.next(), "bad")
    _answer(stream, stream.next())
    assert stream.next() is None
    assert stream.settled
    assert stream.held(CHOOSABLE) == {f"{OWN}80": "1"}


def test_a_client_that_chooses_no_more_waits_for_no_table(stream: Stream) -> None:
    stream.receive(Request(CHOOSABLE, unsubscribe=(f"{OWN}*",)))
    stream.replace(_published(["80", "81"], "2"))
    assert _told(stream.next()) == ("Listener", ["own"], [])


def test_a_client_is_told_of_another_collection_when_it_asks_for_it(stream: Stream) -> None:
    stream.receive(Request(CHOOSABLE, subscribe=(f"{OTHERS}*",)))
    assert _told(stream.next()) == ("ScopedRouteConfiguration", [f"{OTHERS}80"], [])


def test_a_client_that_comes_back_is_told_what_it_lacks_of_its_collection() -> None:
    made = Stream(_published(["80", "81"], "1"))
    made.receive(Request(CLUSTER, initial_versions={"c": "1"}))
    made.receive(Request(LISTENER, initial_versions={"own": "1"}))
    known = {f"{OWN}80": "1", f"{OWN}82": "1"}
    made.receive(Request(CHOOSABLE, subscribe=(f"{OWN}*",), initial_versions=known))
    assert _told(made.next()) == ("ScopedRouteConfiguration", ["81"], [])
    assert f"{OWN}82" in made.held(CHOOSABLE), "it goes when listeners and tables are there"
