"""A result is remembered by the function and the arguments that it was made of."""

from __future__ import annotations

from meshd.compile.memo import Memo

calls: list[object] = []


def doubled(values: tuple[int, ...], *, times: int = 2) -> list[int]:
    calls.append(values)
    return [value * times for value in values]


def negated(values: tuple[int, ...]) -> list[int]:
    return [-value for value in values]


def test_equal_arguments_give_the_very_result_of_before() -> None:
    memo = Memo()
    calls.clear()
    first = memo.call("name", doubled, (1, 2))
    memo.end_round()
    assert memo.call("name", doubled, (1, 2)) is first
    assert calls == [(1, 2)]


def test_other_arguments_or_another_function_give_another_result() -> None:
    memo = Memo()
    assert memo.call("name", doubled, (1,)) == [2]
    assert memo.call("name", doubled, (1,), times=3) == [3]
    assert memo.call("name", doubled, (2,)) == [4]
    assert memo.call("name", negated, (2,)) == [-2]


def test_what_a_round_did_not_ask_for_is_forgotten() -> None:
    memo = Memo()
    first = memo.call("name", doubled, (1,))
    memo.end_round()
    memo.end_round()
    assert memo.call("name", doubled, (1,)) is not first


def test_the_newest_of_equal_arguments_are_kept() -> None:
    """Else a snapshot would stay in memory for as long as nothing differs from it."""
    memo = Memo()
    old, new = (1000, 2000), (1000, 2000)
    memo.call("name", doubled, old)
    memo.end_round()
    calls.clear()
    memo.call("name", doubled, new)
    memo.end_round()
    assert calls == []
    ((given, _),) = memo._before.values()  # type: ignore[reportPrivateUsage]
    assert given[1][0] is new  # type: ignore[index]


def test_a_memory_aside_has_the_last_round_and_nothing_that_came_since() -> None:
    memo = Memo()
    first = memo.call("name", doubled, (1,))
    memo.end_round()
    memo.call("since", doubled, (2,))
    aside = memo.aside()
    assert aside.call("name", doubled, (1,)) is first
    calls.clear()
    memo.call("since", doubled, (2,))
    assert calls == [(2,)]
