"""Enrollments, whatever ends the process that carries them out, and wherever."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd import wire
from meshd.base.errors import InvalidInputError, NotReadyError, SystemRefusedError
from meshd.node.in_progress import InProgress
from meshd.workloads.intent import Action, Intent, Step
from tests.unit.node.enrolling_world import (
    FULL,
    LATE,
    STORED,
    UNIT,
    Host,
    Request,
    contained,
    enroll,
    hosted,
)

PORTS: Final = (wire.OfferedPort(80, 8080, "http"),)
MORE: Final = (wire.OfferedPort(90, 9090, "grpc"),)
OFFERED: Final = {"service": "front", "ports": PORTS}
END: Final = wire.Unenroll(uid="shop.web", unit=UNIT, run="run-0")


def enrolled() -> Host:
    """A host with a service that is enrolled with a Service of its own."""
    host = Host()
    asyncio.run(carry_out(host, enroll(hosted(), **OFFERED)))
    host.effects.clear()
    host.restarts = 0
    return host


@dataclasses.dataclass(frozen=True)
class Case:
    """A host as it was, and what is asked of it."""

    make: Callable[[], Host]
    request: Request


def _late() -> Host:
    return Host(failing={"prove": LATE})


CASES: Final = {
    "a unit": Case(Host, enroll(hosted())),
    "a unit with a service of its own": Case(Host, enroll(hosted(), **OFFERED)),
    "a unit that joins a service": Case(
        lambda: Host(services={"front": STORED}), enroll(hosted(), service="front", ports=MORE)
    ),
    "a unit that is not to be restarted": Case(Host, enroll(hosted(), restart=False)),
    "a unit that cannot be captured": Case(_late, enroll(hosted(), **OFFERED)),
    "a unit that joins a service and cannot be captured": Case(
        lambda: Host(services={"front": STORED}, failing={"prove": LATE}),
        enroll(hosted(), service="front", ports=MORE),
    ),
    "a namespace": Case(Host, enroll(contained(1), **OFFERED)),
    "a namespace that is not proven": Case(_late, enroll(contained(1), **OFFERED)),
    "a container that was restarted": Case(
        lambda: Host(registered={"shop.web": contained(1)}), enroll(contained(2))
    ),
    "a unit that is enrolled": Case(
        enrolled, wire.EnrollAgain(uid="shop.web", run="run-1", timeout=60.0)
    ),
    "a unit that leaves": Case(enrolled, END),
    "a unit that leaves and goes on": Case(
        enrolled, wire.Unenroll(uid="shop.web", unit=UNIT, restart=False)
    ),
    "what is prepared for no workload": Case(
        lambda: Host(prepared={UNIT}), wire.Unenroll(unit=UNIT)
    ),
}


async def carry_out(host: Host, request: Request) -> wire.Progress:
    process = host.start()
    (end,) = await process.finish(await process.requests.answer(request))
    return end


def stopped(case: Case, stops: Iterable[tuple[int, bool]]) -> Host:
    """Return the host after its process was killed at effects and went on each time."""
    host = case.make()
    request: Request | None = case.request
    for at, is_before in stops:
        asyncio.run(live(host, request, at, is_before=is_before))
        request = None
    asyncio.run(live(host, None))
    return host


async def live(
    host: Host, request: Request | None, at: int = -1, *, is_before: bool = False
) -> None:
    process = host.start()
    host.effects.clear()
    host.kill_at, host.kill_before = at, is_before
    await process.live(request)


@pytest.mark.parametrize("name", CASES)
def test_a_kill_at_any_step_ends_as_without_it_or_as_before(name: str) -> None:
    case = CASES[name]
    before, whole = case.make(), case.make()
    asyncio.run(carry_out(whole, case.request))
    assert whole.journal == b"{}"
    for at in range(len(whole.effects)):
        for is_before in (True, False):
            host = stopped(case, [(at, is_before)])
            assert host.state in (whole.state, before.state), (at, is_before)
            assert host.restarts <= max(whole.restarts, 1)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(CASES)),
    stops=st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=4),
)
def test_kills_one_after_the_other_end_as_without_them_or_as_before(
    name: str, stops: list[tuple[int, bool]]
) -> None:
    case = CASES[name]
    before, whole = case.make(), case.make()
    asyncio.run(carry_out(whole, case.request))
    assert stopped(case, stops).state in (whole.state, before.state)


def test_a_unit_is_held_before_it_is_registered_and_captured_before_it_is_restarted() -> None:
    host = Host()
    end = asyncio.run(carry_out(host, enroll(hosted(), **OFFERED)))
    assert host.effects == ["write", "apply", "prepare", "register", "prove", "restart", "write"]
    assert (end.problem, end.remarks, host.is_inside) == ("", (f"{UNIT} is prepared",), True)


def test_a_unit_that_cannot_be_captured_is_as_before() -> None:
    host = Host(failing={"prove": LATE})
    end = asyncio.run(carry_out(host, enroll(hosted(), **OFFERED)))
    assert end.problem == f"{LATE}; {UNIT} was not enrolled"
    assert host.state == Host().state
    assert host.restarts == 0


def test_a_namespace_that_is_not_proven_stays_enrolled() -> None:
    host = Host(failing={"prove": LATE})
    end = asyncio.run(carry_out(host, enroll(contained(1))))
    assert end.problem == str(LATE)
    assert "shop.web" in host.registered


def test_a_namespace_does_not_outlive_a_reboot() -> None:
    host = Host()
    asyncio.run(live(host, enroll(contained(1), **OFFERED), 2))
    assert host.services
    host.boot = "second"
    host.registered.clear()
    asyncio.run(live(host, None))
    assert host.state == Host().state


@pytest.mark.parametrize("effect", ["write", "apply", "prepare", "register"])
def test_a_full_disk_at_any_step_leaves_the_host_as_it_was(effect: str) -> None:
    host = Host(failing={effect: FULL})

    async def meet() -> str:
        process = host.start()
        try:
            asked = await process.requests.answer(enroll(hosted(), **OFFERED))
        except SystemRefusedError as error:
            assert not process.enrolling.statuses()
            return str(error)
        (end,) = await process.finish(asked)
        return end.problem

    assert "No space left on device" in asyncio.run(meet())
    assert host.state == Host().state


@pytest.mark.parametrize("effect", ["unregister", "delete", "restore"])
def test_an_unenrollment_ends_once_the_disk_can_be_written_and_status_says_why_not_yet(
    effect: str,
) -> None:
    host = enrolled()
    host.failing = {effect: FULL}

    async def leave() -> None:
        process = host.start()
        asked = await process.requests.answer(END)
        progress = asked
        while not progress.problem:
            question = wire.Await(asked.number, progress.state, 5.0)
            progress = await process.requests.answer(question)
        (status,) = process.enrolling.statuses()
        assert status.what == f"unenrollment of {UNIT}"
        assert status.problem == str(FULL)
        host.failing = {}
        (end,) = await process.finish(asked)
        assert end.problem == ""

    asyncio.run(leave())
    assert host.state == Host().state


def test_an_unenrollment_leaves_a_service_in_a_file_alone() -> None:
    host = enrolled()
    why = "Service shop/front is in the file /etc/meshd/config.d/front.yaml; change it there"
    host.failing = {"delete": InvalidInputError(why)}
    end = asyncio.run(carry_out(host, END))
    assert (end.finished, end.problem) == (True, "")
    assert end.remarks == (f"Service shop/front stays: {why}",)
    assert (host.registered, host.prepared) == ({}, set())


def test_ports_that_cannot_be_taken_back_any_more_are_told() -> None:
    host = Host(services={"front": STORED}, failing={"prove": LATE})

    async def meet() -> wire.Progress:
        process = host.start()
        host.is_proven.clear()
        request = enroll(hosted(), service="front", ports=MORE)
        asked = await process.requests.answer(request)
        while not host.registered:  # noqa: ASYNC110 - the host is in memory
            await asyncio.sleep(0.001)
        host.failing["apply"] = InvalidInputError("it is in a file")
        host.is_proven.set()
        (end,) = await process.finish(asked)
        return end

    remarks = asyncio.run(meet()).remarks
    assert "Service shop/front keeps its ports: it is in a file" in remarks


def test_an_enrollment_that_fails_leaves_the_service_of_the_one_before() -> None:
    host = enrolled()
    before = host.state
    host.failing = {"prove": LATE}
    asyncio.run(carry_out(host, enroll(hosted(), service="second", ports=MORE)))
    assert "apply" in host.effects
    assert host.services.keys() == {"front"}
    assert host.registered == before[0]


def test_a_unit_that_does_not_restart_has_left_all_the_same() -> None:
    host = enrolled()
    host.failing = {"restart": SystemRefusedError("Job for web.service failed.")}
    end = asyncio.run(carry_out(host, END))
    assert end.problem == "unenrolled, but: Job for web.service failed."
    assert (host.registered, host.services, host.prepared) == ({}, {}, set())


def test_the_same_asked_twice_is_done_once() -> None:
    host = Host()

    async def twice() -> None:
        host.is_proven.clear()
        process = host.start()
        asked = [await process.requests.answer(enroll(hosted(), **OFFERED))]
        while not host.registered:  # noqa: ASYNC110 - the host is in memory
            await asyncio.sleep(0.001)
        asked.append(await process.requests.answer(enroll(hosted(), **OFFERED)))
        host.is_proven.set()
        assert asked[0].number == asked[1].number
        ends = await process.finish(*asked)
        assert [one.problem for one in ends] == ["", ""]

    asyncio.run(twice())
    assert host.effects.count("register") == 1


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (enroll(hosted(), **OFFERED), "web.service is being enrolled as shop/web"),
        (enroll(hosted("api")), "port 8080 is captured for shop/web already"),
    ],
    ids=["the same unit", "the same port"],
)
def test_a_request_that_contradicts_an_enrollment_in_progress_is_refused(
    other: wire.Enroll, reason: str
) -> None:
    host = Host()

    async def both() -> None:
        process = host.start()
        first = await process.requests.answer(enroll(hosted()))
        with pytest.raises(InvalidInputError, match=reason):
            await process.requests.answer(other)
        (end,) = await process.finish(first)
        assert end.problem == ""

    asyncio.run(both())
    assert host.registered.keys() == {"shop.web"}


def test_two_units_are_enrolled_at_the_same_time() -> None:
    host = Host()

    async def both() -> None:
        process = host.start()
        wanted = (enroll(hosted()), enroll(hosted("api", 8081)))
        asked = [await process.requests.answer(one) for one in wanted]
        assert [one.problem for one in await process.finish(*asked)] == ["", ""]

    asyncio.run(both())
    assert host.registered.keys() == {"shop.web", "shop.api"}
    assert host.journal == b"{}"


@pytest.mark.parametrize("turns", range(12))
def test_unenrolling_ends_an_enrollment_in_work(turns: int) -> None:
    host = Host()

    async def change_ones_mind() -> None:
        process = host.start()
        first = await process.requests.answer(enroll(hosted(), **OFFERED))
        for _ in range(turns):
            await asyncio.sleep(0)
        last = await process.requests.answer(END)
        _, end = await process.finish(first, last)
        assert end.problem == ""

    asyncio.run(change_ones_mind())
    assert host.state == Host().state


def test_an_enrollment_that_waits_does_nothing_any_more_once_it_is_given_up() -> None:
    host = Host()

    async def change_ones_mind() -> None:
        host.is_proven.clear()
        process = host.start()
        first = await process.requests.answer(enroll(hosted(), **OFFERED))
        while first.doing != Step.PROVE.value:
            question = wire.Await(first.number, first.state, 5.0)
            first = await process.requests.answer(question)
        last = await process.requests.answer(END)
        given_up, _ = await process.finish(first, last)
        assert given_up.problem == f"{UNIT} is unenrolled"
        host.is_proven.set()
        for _ in range(20):
            await asyncio.sleep(0)

    asyncio.run(change_ones_mind())
    assert host.state == Host().state
    assert "prove" not in host.effects


def test_a_fault_before_the_first_step_leaves_the_intent_in_the_journal() -> None:
    entry = InProgress(Intent(number=1, action=Action.UNENROLL, unit=UNIT), 0.0)
    entry.meet("KeyError")
    assert not entry.is_over
    entry.begin(Step.RESTORE)
    entry.conclude()
    assert entry.is_over


def test_a_workload_that_is_leaving_cannot_be_enrolled_until_it_has_left() -> None:
    host = enrolled()

    async def hurry() -> None:
        process = host.start()
        leaving = await process.requests.answer(END)
        with pytest.raises(NotReadyError, match="is being unenrolled"):
            await process.requests.answer(enroll(hosted()))
        await process.finish(leaving)
        (end,) = await process.finish(await process.requests.answer(enroll(hosted())))
        assert end.problem == ""

    asyncio.run(hurry())
    assert host.registered.keys() == {"shop.web"}


def test_a_number_is_not_known_any_more_after_a_restart() -> None:
    host = Host()
    end = asyncio.run(carry_out(host, enroll(hosted())))

    async def ask() -> wire.Progress:
        return await host.start().requests.answer(wire.Await(end.number, 0, 0.0))

    assert not asyncio.run(ask()).known
