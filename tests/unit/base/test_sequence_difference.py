"""The part in which two sequences differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshd.base.sequence_difference import SequenceDifference

sequences = st.lists(st.sampled_from("abc"), max_size=6).map(tuple)


@given(sequences, sequences)
def test_the_old_with_the_new_part_is_the_new(old: tuple[str, ...], new: tuple[str, ...]) -> None:
    difference = SequenceDifference.between(old, new)
    assert difference.replaced(old, difference.of_new(new)) == new
    assert len(difference.of_old(old)) <= len(old)


@given(sequences, sequences)
def test_both_parts_begin_and_end_with_what_the_other_does_not(
    old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    difference = SequenceDifference.between(old, new)
    gone, come = difference.of_old(old), difference.of_new(new)
    assert not (gone and come) or (gone[0] != come[0] and gone[-1] != come[-1])
    assert (old == new) == (not gone and not come)


@given(
    st.integers(0, 1200),
    st.sets(st.integers(0, 1200), max_size=3),
    st.integers(0, 1200),
    st.integers(0, 3),
)
def test_a_change_is_found_at_any_position(
    length: int, changed: set[int], place: int, more: int
) -> None:
    old = tuple(range(length))
    edited = [-1 - one if one in changed else one for one in old]
    new = (*edited[:place], *[-5000] * more, *edited[place:])
    difference = SequenceDifference.between(old, new)
    assert difference.replaced(old, difference.of_new(new)) == new
    gone, come = difference.of_old(old), difference.of_new(new)
    assert not (gone and come) or (gone[0] != come[0] and gone[-1] != come[-1])


def test_one_that_has_changed_is_all_of_the_part() -> None:
    difference = SequenceDifference.between(("a", "b", "c"), ("a", "d", "c"))
    assert (difference.of_old(("a", "b", "c")), difference.of_new(("a", "d", "c"))) == (
        ("b",),
        ("d",),
    )
