"""A client may be told of what is gone later than of what there is, or not at all for now."""

from __future__ import annotations

import dataclasses

import pytest

from meshd.fleet.server.mcp import encode_body
from meshd.xds.exchange import Request, Response
from meshd.xds.resources import Resources, difference
from meshd.xds.unordered import UnorderedStream

POLICY, ROUTES = "test/v1/Policy", "test/v1/Routes"


def published(*names: str, removed: frozenset[str] | None = None) -> Resources:
    found = Resources.of(encode_body(POLICY, name, {}) for name in names)
    return Resources(found.by_type, removed)


def connected(resources: Resources) -> UnorderedStream:
    """Return the stream of a client that comes back with a policy and routes."""
    stream = UnorderedStream(resources)
    for url in (POLICY, ROUTES):
        stream.receive(Request(url, subscribe=("*",), initial_versions={"a": "1"}))
    return stream


def told(stream: UnorderedStream) -> list[tuple[str, list[str], tuple[str, ...]]]:
    """Return what the client is told, which takes all of it."""
    found: list[Response] = []
    while response := stream.next():
        found.append(response)
        stream.receive(Request(response.type_url, nonce=response.nonce))
    return [(one.type_url, [each.name for each in one.resources], one.removed) for one in found]


def test_removals_are_told_at_once() -> None:
    stream = connected(published("z"))
    assert told(stream) == [(POLICY, ["z"], ("a",)), (ROUTES, [], ("a",))]
    assert stream.settled


@pytest.mark.parametrize("many", [1, 500])
def test_removals_of_some_types_are_told_last_and_of_others_not_yet(many: int) -> None:
    names = [f"z{number:03}" for number in range(many)]
    lost = published(*names, removed=frozenset({POLICY}))
    stream = connected(lost)
    *first, last = told(stream)
    assert [name for _, part, _ in first for name in part] == names
    assert not any(removed for _, _, removed in first)
    assert last == (POLICY, [], ("a",))
    assert stream.settled

    whole = published(*names)
    stream.publish(whole, difference(lost, whole))
    assert told(stream) == [(ROUTES, [], ("a",))]
    assert stream.settled


@pytest.mark.parametrize("removed", [None, frozenset({POLICY, ROUTES})])
def test_a_client_keeps_what_it_cannot_be_told_of(removed: frozenset[str] | None) -> None:
    without = published("z", removed=removed)
    kept = dataclasses.replace(without, untold=frozenset({(POLICY, "a")}))
    stream = connected(kept)
    assert (POLICY, [], ("a",)) not in (answers := told(stream))
    assert [name for _, names, _ in answers for name in names] == ["z"]
    assert [gone for url, _, gone in answers if url == ROUTES] == [("a",)]
    assert stream.settled
    stream.publish(without, difference(kept, without))
    assert told(stream) == [(POLICY, [], ("a",))]
    assert stream.settled


def test_a_version_that_is_wanted_again_ends_the_refusal_of_the_one_after_it() -> None:
    first = Resources.of([encode_body(POLICY, "a", {"says": "one"})])
    second = Resources.of([encode_body(POLICY, "a", {"says": "two"})])
    stream = UnorderedStream(first)
    stream.receive(Request(POLICY, subscribe=("*",)))
    assert told(stream) == [(POLICY, ["a"], ())]
    stream.publish(second, difference(first, second))
    response = stream.next()
    assert response
    stream.receive(Request(POLICY, nonce=response.nonce, error="no"))
    assert told(stream) == []
    stream.publish(first, difference(second, first))
    assert told(stream) == [(POLICY, ["a"], ())]
    assert stream.synced
