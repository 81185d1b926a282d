"""Clusters are removed once the connections of former listeners have ended."""

from __future__ import annotations

from meshd.xds.exchange import Request, Response
from meshd.xds.leaving import Leaving
from meshd.xds.resources import CLUSTER, LISTENER, Resource, Resources
from meshd.xds.stream import Stream


def _published(*clusters: str, listener: str = "1") -> Resources:
    return Resources.of(
        [
            Resource(LISTENER, "l", listener, b""),
            *(Resource(CLUSTER, name, "1", b"") for name in clusters),
        ]
    )


def _drain(stream: Stream) -> list[Response]:
    """Accept all there is."""
    sent: list[Response] = []
    while response := stream.next():
        sent.append(response)
        stream.receive(Request(response.type_url, nonce=response.nonce))
    return sent


def _has(*clusters: str) -> Stream:
    stream = Stream(_published(*clusters), drains=True)
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    _drain(stream)
    return stream


def test_a_cluster_stays_for_one_drain_time_at_least_and_two_at_most() -> None:
    stream = _has("a", "b")
    stream.replace(_published("a", listener="2"))
    assert [one.type_url for one in _drain(stream)] == [LISTENER]
    assert stream.settled
    stream.end_period()
    assert not _drain(stream)
    assert stream.waits_to_remove
    stream.end_period()
    (last,) = _drain(stream)
    assert (last.type_url, last.removed) == (CLUSTER, ("b",))
    assert not stream.waits_to_remove


def test_a_cluster_that_comes_back_is_not_removed_and_waits_anew_when_it_goes_again() -> None:
    stream = _has("a", "b")
    stream.replace(_published("a"))
    assert not _drain(stream)
    stream.end_period()
    stream.replace(_published("a", "b"))
    assert not _drain(stream)
    stream.end_period()
    stream.replace(_published("a"))
    assert not _drain(stream)
    stream.end_period()
    assert not _drain(stream)
    stream.end_period()
    assert [one.removed for one in _drain(stream)] == [("b",)]


def test_a_cluster_that_changes_is_not_held_back() -> None:
    stream = _has("a", "b")
    stream.replace(_published("a"))
    assert not _drain(stream)
    back = Resource(CLUSTER, "b", "2", b"")
    after = _published("a").by_type
    stream.replace(Resources({**after, CLUSTER: {**after[CLUSTER], "b": back}}))
    (changed,) = _drain(stream)
    assert changed.resources == (back,)


def test_nothing_waits_for_a_client_that_keeps_no_connections() -> None:
    leaving = Leaving(drains=False)
    leaving.note(["a"])
    assert not leaving.stays("a")
    assert not leaving.waits
