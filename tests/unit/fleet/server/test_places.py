"""Which connection gives way when there are no places."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meshd.fleet.server.places import Places

MOST, MOST_OF_ONE = 6, 3


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans())))
def test_there_are_never_more_than_allowed_in_all_or_of_one(steps: list[tuple[str, bool]]) -> None:
    places = Places[int](MOST, MOST_OF_ONE)
    inside: dict[int, str] = {}
    for number, (owner, enters) in enumerate(steps):
        if enters:
            inside[number] = owner
            if (evicted := places.enter(owner, number)) is not None:
                del inside[evicted]
        elif mine := [who for who, whose in inside.items() if whose == owner]:
            places.leave(owner, mine[0])
            del inside[mine[0]]
        assert len(places) == len(inside) <= MOST
        assert max(Counter(inside.values()).values(), default=0) <= MOST_OF_ONE


def test_the_oldest_of_whoever_has_most_gives_way() -> None:
    places = Places[int](3, 3)
    for number, owner in enumerate(("few", "many", "many")):
        assert places.enter(owner, number) is None
    assert places.enter("other", 3) == 1


def test_a_node_with_too_many_streams_loses_its_own() -> None:
    places = Places[int](9, 2)
    for number, owner in enumerate(("few", "many", "many")):
        assert places.enter(owner, number) is None
    assert places.enter("many", 3) == 1


def test_leaving_twice_does_no_harm() -> None:
    places = Places[int](2, 2)
    places.enter("a", 1)
    places.leave("a", 1)
    places.leave("a", 1)
    assert len(places) == 0
