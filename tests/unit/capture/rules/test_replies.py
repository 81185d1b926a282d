"""Which steps mark replies, and which put back what was there before; a process may die at any."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from meshd.capture.rules.replies import Found, Step, lack, steps
from meshd.capture.rules.rule import Family

BOTH = (Family.IPV4, Family.IPV6)
FORMER = (False, True)
"""Values of the sysctl before meshd came."""


def after(found: Found, step: Step) -> Found:
    """What the kernel makes of a step."""
    if step.family is None:
        return dataclasses.replace(found, accepts=step.add)
    rules = {one: note for one, note in found.rules.items() if one is not step.family}
    return Found(found.accepts, {**rules, step.family: step.notes} if step.add else rules)


def states(found: Found, wanted: tuple[Family, ...]) -> list[Found]:
    """Those after each number of steps, the last one being the wanted one."""
    return list(itertools.accumulate(steps(found, wanted), after, initial=found))


@pytest.mark.parametrize("former", FORMER)
@pytest.mark.parametrize("wanted", [BOTH, (Family.IPV4,)])
def test_replies_are_marked_and_a_second_time_nothing_is_done(
    former: bool, wanted: tuple[Family, ...]
) -> None:
    marked = states(Found(former, {}), wanted)[-1]
    assert marked.accepts
    assert marked.rules.keys() == set(wanted)
    assert list(steps(marked, wanted)) == []
    assert lack(marked, wanted, "") == ""


@pytest.mark.parametrize("former", FORMER)
def test_the_former_value_is_put_back_wherever_processes_died(former: bool) -> None:
    for first in states(Found(former, {}), BOTH):
        for second in (*states(first, BOTH), *states(first, ()), *states(first, BOTH[:1])):
            for third in (*states(second, BOTH), *states(second, ())):
                assert states(third, ())[-1] == Found(former, {})


@pytest.mark.parametrize("former", FORMER)
def test_replies_are_marked_wherever_processes_died(former: bool) -> None:
    for first in states(Found(former, {}), BOTH):
        for second in (*states(first, ()), *states(first, BOTH)):
            marked = states(second, BOTH)[-1]
            assert marked.accepts
            assert marked.rules.keys() == set(BOTH)


def test_a_value_that_its_owner_has_set_back_stays_and_is_reported() -> None:
    """It was 1 before meshd came: the workload's own."""
    owned = Found(accepts=False, rules={Family.IPV4: False, Family.IPV6: False})
    assert list(steps(owned, BOTH)) == []
    assert lack(owned, BOTH, "") == "somebody has set net.ipv4.tcp_fwmark_accept=0"
    assert states(owned, ())[-1] == Found(accepts=False, rules={})


def test_a_family_that_is_captured_no_longer_loses_its_rule_only() -> None:
    marked = states(Found(False, {}), BOTH)[-1]
    assert list(map(str, steps(marked, (Family.IPV4,)))) == [
        "drop rule fwmark 0x53a/0xfff lookup 15100"
    ]


def test_where_the_value_cannot_be_set_nothing_is_done() -> None:
    found = Found(accepts=None, rules={})
    assert list(steps(found, BOTH)) == []
    assert "/proc/sys is read-only" in lack(found, BOTH, "")


def test_a_user_of_marks_is_named_only_where_replies_are_captured() -> None:
    assert lack(Found(False, {}), BOTH, "rule fwmark 0x1").endswith("use marks: rule fwmark 0x1")
    assert lack(Found(False, {}), (), "rule fwmark 0x1") == ""


def test_a_rule_that_is_lost_is_written_again_with_its_note() -> None:
    marked = states(Found(False, {}), BOTH)[-1]
    lost = dataclasses.replace(marked, rules={Family.IPV6: marked.rules[Family.IPV6]})
    assert states(lost, BOTH)[-1] == marked
