"""The order in which pods take the places of others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.model.pod import Strategy
from meshd.pods.rollout import Standing, Step, is_done, next_step

OLD = tuple(Standing(f"old-{index}", current=False, available=True) for index in range(4))
NEW = tuple(f"new-{index}" for index in range(4))
QUARTER = Strategy(order="rolling", surge=1, unavailable=1)
ORDERED = Strategy(order="ordered")


def carry_out(step: Step, pods: Sequence[Standing]) -> list[Standing]:
    stay = [pod for pod in pods if pod.uid not in step.stop]
    return stay + [Standing(uid, current=True, available=False) for uid in step.start]


def become_available(pods: Sequence[Standing]) -> list[Standing]:
    return [dataclasses.replace(pod, available=True) for pod in pods]


def settle(strategy: Strategy, wanted: Sequence[str], pods: Sequence[Standing]) -> list[Standing]:
    """As far as it goes while no pod becomes available."""
    standing = list(pods)
    while (step := next_step(strategy, wanted, standing)) != Step():
        standing = carry_out(step, standing)
    return standing


def test_a_first_start_starts_all_pods_of_a_deployment_at_once() -> None:
    assert next_step(QUARTER, NEW, ()) == Step(start=NEW)


@given(
    replicas=st.integers(0, 8),
    before=st.integers(0, 8),
    surge=st.integers(0, 8),
    unavailable=st.integers(0, 8),
    data=st.data(),
)
def test_a_roll_keeps_enough_pods_available_and_ends(
    replicas: int, before: int, surge: int, unavailable: int, data: st.DataObject
) -> None:
    strategy = Strategy(order="rolling", surge=surge, unavailable=unavailable or (surge == 0))
    wanted = [f"new-{index}" for index in range(replicas)]
    pods = [Standing(f"old-{index}", current=False, available=True) for index in range(before)]
    least = min(before, replicas - strategy.unavailable)
    for _ in range(100):
        step = next_step(strategy, wanted, pods)
        pods = carry_out(step, pods)
        assert sum(pod.available for pod in pods) >= least
        assert len(pods) <= max(before, replicas + surge)
        if step == Step() and not is_done(wanted, pods):
            late = [pod.uid for pod in pods if not pod.available]
            assert late, "it waits for nothing"
            ready = data.draw(st.sampled_from(late))
            pods = [
                dataclasses.replace(pod, available=pod.available or pod.uid == ready)
                for pod in pods
            ]
    assert is_done(wanted, pods)


def test_pods_that_never_get_ready_stop_the_roll_and_the_old_ones_go_on() -> None:
    pods = settle(QUARTER, NEW, OLD)
    assert sum(pod.available for pod in pods) == 3
    assert not is_done(NEW, pods)


def test_a_single_pod_goes_on_until_the_next_one_is_available() -> None:
    strategy = Strategy(order="rolling", surge=1)
    pods = settle(strategy, NEW[:1], OLD[:1])
    assert [pod.uid for pod in pods] == ["old-0", "new-0"]
    assert settle(strategy, NEW[:1], become_available(pods)) == [
        Standing("new-0", current=True, available=True)
    ]


def test_old_pods_that_are_not_available_go_first() -> None:
    sick = dataclasses.replace(OLD[2], available=False)
    step = next_step(Strategy(order="rolling", unavailable=1), NEW, (*OLD[:2], sick, OLD[3]))
    assert step == Step(stop=("old-2",))


def test_pods_that_are_one_too_many_go_without_waiting() -> None:
    pods = [Standing(uid, current=uid in NEW[:2], available=True) for uid in NEW]
    assert set(next_step(QUARTER, NEW[:2], pods).stop) == set(NEW[2:])


def test_recreate_ends_all_before_it_starts_any() -> None:
    assert next_step(Strategy(), NEW, OLD) == Step(stop=tuple(pod.uid for pod in OLD))
    assert next_step(Strategy(), NEW, ()) == Step(start=NEW)


def test_pods_of_a_stateful_set_start_one_after_another() -> None:
    names = ("db-0", "db-1")
    pods = settle(ORDERED, names, ())
    assert [pod.uid for pod in pods] == ["db-0"]
    pods = settle(ORDERED, names, become_available(pods))
    assert [pod.uid for pod in pods] == ["db-0", "db-1"]


def test_pods_of_a_stateful_set_are_replaced_from_the_highest_ordinal() -> None:
    names = tuple(f"db-{index}" for index in range(11))
    pods: list[Standing] = [Standing(uid, current=False, available=True) for uid in names]
    order: list[str] = []
    while not is_done(names, pods):
        step = next_step(ORDERED, names, pods)
        order += step.stop
        pods = carry_out(step, pods) if step != Step() else become_available(pods)
        assert sum(not pod.available for pod in pods) <= 1
    assert order == list(reversed(names))


def test_a_stateful_set_is_cut_from_its_highest_ordinal() -> None:
    pods = [Standing(f"db-{index}", current=index < 1, available=True) for index in (0, 2, 10, 1)]
    step = next_step(ORDERED, ("db-0",), pods)
    assert step == Step(stop=("db-10",))


@pytest.mark.parametrize("available", [True, False])
def test_a_stateful_sets_pod_of_before_that_fails_is_replaced(available: bool) -> None:
    pods = [Standing("db-0", current=False, available=available)]
    assert next_step(ORDERED, ("db-0",), pods) == Step(stop=("db-0",))
