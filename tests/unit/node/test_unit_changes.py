"""What the capture role does to units when the mesh role asks it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from meshd import wire
from meshd.base.errors import InvalidInputError
from meshd.node.unit_changes import UnitChanges, is_to_restart
from meshd.workloads.host.systemd import Systemd, Unit, described
from meshd.workloads.host.units import cgroup_of
from tests.waiting import PATIENCE

UNIT = "web.service"


def no_systemd() -> Systemd:
    raise AssertionError("systemd was asked")


@pytest.mark.parametrize("name", ["ssh.service", "meshd.service", "web", "../web.service", "a b"])
def test_units_that_the_host_needs_and_what_is_no_unit_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        asyncio.run(UnitChanges(no_systemd).change(wire.PrepareUnit(name)))


def running(cgroup: str, state: str = "active") -> Unit:
    lines = (
        "LoadState=loaded",
        f"ActiveState={state}",
        f"ControlGroup={cgroup}",
        "InvocationID=now",
    )
    return described(UNIT, "\n".join(lines))


OUTSIDE = running(f"/system.slice/{UNIT}")
INSIDE = running(f"/{cgroup_of(UNIT)}/{UNIT}")


@pytest.mark.parametrize(
    ("unit", "run", "inside", "expected"),
    [
        (OUTSIDE, "now", True, True),
        (OUTSIDE, "before", True, True),
        (INSIDE, "now", True, True),
        (INSIDE, "before", True, False),
        (INSIDE, "", True, False),
        (INSIDE, "before", False, True),
        (OUTSIDE, "before", False, False),
        (running("", "inactive"), "now", True, False),
        (described(UNIT, "LoadState=not-found\nActiveState=active"), "now", False, False),
    ],
)
def test_a_unit_is_restarted_once_and_where_it_should_not_be(
    unit: Unit, run: str, inside: bool, expected: bool
) -> None:
    assert is_to_restart(unit, run, inside=inside) == expected


class Shown:
    """A systemd that knows one unit, and does nothing before ``go`` is set."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        self.done: list[str] = []
        self.began = threading.Event()
        self.go = threading.Event()

    def look(self, unit: str) -> Unit:
        return described(unit, "\n".join(self.lines))

    def restart(self, unit: str) -> None:
        self.done.append(f"restart {unit}")

    def undo(self, unit: str) -> None:
        self.began.set()
        self.go.wait(PATIENCE)
        self.done.append(f"undo {unit}")

    def stop_slice(self, unit: str) -> None:
        self.done.append(f"stop {unit}")


def preparing(shown: Shown) -> UnitChanges:
    return UnitChanges(lambda: cast("Any", shown))


RESTART = wire.RestartUnit(unit=UNIT, run="now", inside=True)
RUNS = ("LoadState=loaded", "ActiveState=active", "InvocationID=now")


@pytest.mark.parametrize("request_", [wire.PrepareUnit(UNIT), RESTART])
@pytest.mark.parametrize(
    "line", ["Id=systemd-networkd.service", "Id=web.service\nNames=web.service sshd.service"]
)
def test_an_alias_of_a_unit_that_the_host_needs_is_refused(
    request_: wire.PrepareUnit | wire.RestartUnit, line: str
) -> None:
    shown = Shown(*RUNS, *line.split("\n"))
    with pytest.raises(InvalidInputError, match=r"web\.service is s.*never captured"):
        asyncio.run(preparing(shown).change(request_))
    assert shown.done == []


def test_other_aliases_are_those_of_any_unit() -> None:
    shown = Shown(*RUNS, "Id=nginx.service", "Names=nginx.service web.service")
    asyncio.run(preparing(shown).change(RESTART))
    assert shown.done == ["restart web.service"]


@pytest.mark.parametrize("state", ["not-found", "masked", "bad-setting"])
def test_a_unit_that_is_not_loaded_is_not_prepared(state: str) -> None:
    shown = Shown(f"LoadState={state}")
    with pytest.raises(InvalidInputError, match=f"not loaded web.service: {state}"):
        asyncio.run(preparing(shown).change(wire.PrepareUnit(UNIT)))


def test_a_change_waits_for_one_that_nobody_waits_for_any_more() -> None:
    shown = Shown()

    async def ask() -> None:
        changes = preparing(shown)
        first = asyncio.create_task(changes.change(wire.RestoreUnit(UNIT)))
        assert await asyncio.to_thread(shown.began.wait, PATIENCE)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = asyncio.create_task(changes.change(wire.StopSlice(UNIT)))
        await asyncio.sleep(0.05)
        assert shown.done == []
        shown.go.set()
        await second

    asyncio.run(ask())
    assert shown.done == ["undo web.service", "stop web.service"]
