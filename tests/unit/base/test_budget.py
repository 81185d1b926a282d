"""The log budget: no flood gets through, nobody else pays for it, each line is accounted for."""

from __future__ import annotations

import collections

from hypothesis import given
from hypothesis import strategies as st

from meshd.base.budget import INTERVAL, Budget, Limits, Lost, Report, template

LIMITS = Limits(lines=2, bytes=100)
"""With a burst of ten seconds: 20 lines, 1000 bytes."""


def reports(budget: Budget, now: float = INTERVAL) -> dict[str, Report]:
    return {report.source: report for report in budget.reports(now)}


def test_lines_within_the_budget_are_written_without_a_summary() -> None:
    budget = Budget(LIMITS)
    assert all(budget.admits("a", f"line {chr(97 + n)}", 0) for n in range(20))
    assert reports(budget) == {}


def test_lines_over_the_limit_of_lines_are_counted_by_kind() -> None:
    budget = Budget(LIMITS)
    written = [budget.admits("a", f"line {n}", 0) for n in range(50)]
    assert written == [True] * 20 + [False] * 30
    assert reports(budget) == {"a": Report("a", (Lost("line …", 30),))}


def test_lines_over_the_limit_of_bytes_are_counted_too() -> None:
    budget = Budget(LIMITS)
    written = [budget.admits("a", f"{n} {'x' * 398}", 0) for n in range(4)]
    assert written == [True, True, False, False]


def test_the_caller_may_name_the_kind() -> None:
    budget = Budget(LIMITS)
    for n in range(30):
        budget.admits("a", f"GET /{n}", 0, "access log 503")
    assert reports(budget)["a"].lost == (Lost("access log 503", 10),)


def test_one_source_does_not_pay_for_another() -> None:
    budget = Budget(LIMITS)
    for n in range(1000):
        budget.admits("loud", f"line {n}", 0)
    assert budget.admits("quiet", "a line", 0)


def test_buckets_fill_up_again() -> None:
    budget = Budget(LIMITS)
    assert sum(budget.admits("a", f"line {n}", 0) for n in range(100)) == 20
    assert sum(budget.admits("a", f"later {n}", 3) for n in range(100)) == 6


def test_equal_lines_are_folded_until_the_interval_is_over() -> None:
    budget = Budget(LIMITS)
    assert [budget.admits("a", "same", 0) for _ in range(413)] == [True] + [False] * 412
    report = reports(budget)["a"]
    assert report.repeated == 412
    assert budget.admits("a", "same", INTERVAL)


def test_nothing_is_told_before_the_interval_is_over_unless_at_once() -> None:
    budget = Budget(LIMITS)
    for _ in range(3):
        budget.admits("a", "same", 0)
    assert list(budget.reports(INTERVAL / 2)) == []
    assert len(list(budget.reports(INTERVAL / 2, at_once=True))) == 1


def test_many_kinds_are_counted_together_so_that_memory_is_bounded() -> None:
    budget = Budget(LIMITS)
    words = [f"{chr(97 + n % 26)}{chr(97 + n // 26)} failed" for n in range(300)]
    for word in words:
        budget.admits("a", word, 0)
    report = reports(budget)["a"]
    assert report.dropped == 280
    assert len(report.lost) <= 65


def test_sources_that_are_quiet_are_forgotten() -> None:
    budget = Budget(LIMITS)
    for n in range(100):
        budget.admits(f"pod-{n}", "x", 0)
    reports(budget, 100)
    assert not budget._sources  # pyright: ignore[reportPrivateUsage]


def test_a_template_has_nothing_of_what_differs() -> None:
    told = 'closed since 12s ago: 14, at 10.0.0.1:8080 for id 3f2a-11 "GET /x"'
    assert template(told) == "closed since … ago: …, at … for id … …"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.text("xyz0 ", max_size=30), st.floats(0, 0.5)),
        max_size=200,
    )
)
def test_every_line_is_written_or_in_one_report(lines: list[tuple[str, str, float]]) -> None:
    budget, now = Budget(LIMITS), 0.0
    written: collections.Counter[str] = collections.Counter()
    told: collections.Counter[str] = collections.Counter()
    for source, line, pause in lines:
        now += pause
        written[source] += budget.admits(source, line, now)
        for report in budget.reports(now):
            told[report.source] += report.dropped + report.repeated
    for report in budget.reports(now, at_once=True):
        told[report.source] += report.dropped + report.repeated
    assert written + told == collections.Counter(source for source, _, _ in lines)
    assert all(count <= 20 + 2 * now + 1 for count in written.values())
