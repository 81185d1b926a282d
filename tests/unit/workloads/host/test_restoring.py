"""What is damaged on disk costs its workload to be served, never its capture, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd.model.workload import HostService, NamedPort, Stage, Workload, shown
from meshd.workloads import record
from meshd.workloads.host.restoring import Restored, restore
from meshd.workloads.lifecycle import Facts, Life, Phase, known_again, step
from meshd.workloads.record import Record

POD = Workload(uid="mesh.pod", name="pod", namespace="mesh", netns="/n/pod", labels={"app": "pod"})
OTHER = Workload(uid="mesh.other", name="other", namespace="mesh", netns="/n/other")
UNIT = Workload(
    uid="mesh.unit",
    name="unit",
    namespace="mesh",
    netns="",
    ports=(NamedPort("web", 80), NamedPort("more", 81)),
    host=HostService(cgroup="a/b", unit="b.service", outbound_port=15101, inbound_port=15102),
)
ALL = {one.uid: one for one in (POD, OTHER, UNIT)}


class Disk:
    """Both records as they are while three workloads are captured."""

    def __init__(self, directory: Path) -> None:
        self.services = directory / "services.json"
        self.running = directory / "workloads.json"
        lives = {uid: Life(one, Phase.CAPTURED) for uid, one in ALL.items()}
        record.save(self.services, Record({UNIT.uid: UNIT}))
        record.save(self.running, Record(ALL, lives))

    def damage(self, path: Path, part: str, uid: str, *where: str, value: Any = None) -> None:
        content = json.loads(path.read_bytes())
        around = content[part]
        for key in (uid, *where)[:-1]:
            around = around[key]
        around[(uid, *where)[-1]] = value
        path.write_text(json.dumps(content))

    def restored(self, *pinned: str) -> Restored:
        return restore(record.load(self.services), record.load(self.running), pinned)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def stages(found: Restored) -> dict[str, Stage]:
    """What is wanted of capture next."""
    plan = step(found.lives, found.registered, Facts(observed=False))
    return {one.workload.uid: one.stage for one in plan.placements}


def served(found: Restored) -> set[str]:
    return set(step(found.lives, found.registered, Facts(observed=False)).served)


def test_usable_services_are_restored_as_they_were(disk: Disk) -> None:
    lives = {uid: Life(one, Phase.CAPTURED) for uid, one in ALL.items()}
    assert disk.restored() == Restored(ALL, lives, {})


@pytest.mark.parametrize("where", [(), ("labels",), ("netns",), ("addresses",)])
def test_a_registration_that_cannot_be_used_leaves_it_as_it_was_served(
    disk: Disk, where: tuple[str, ...]
) -> None:
    disk.damage(disk.running, "registered", POD.uid, *where, value=["bad"])
    found = disk.restored()
    assert stages(found) == dict.fromkeys(ALL, Stage.CAPTURED)
    assert found.registered == ALL
    assert found.problems.keys() == {POD.uid}
    assert f"workload {shown(POD.uid)}: " in found.problems[POD.uid]


@pytest.mark.parametrize("where", [(), ("workload",), ("phase",), ("workload", "labels")])
def test_a_life_that_cannot_be_used_releases_nothing(disk: Disk, where: tuple[str, ...]) -> None:
    disk.damage(disk.running, "lives", POD.uid, *where, value=["bad"])
    found = disk.restored()
    assert stages(found) == dict.fromkeys(ALL, Stage.CAPTURED)
    assert found.problems.keys() == {POD.uid}


@pytest.mark.parametrize("value", [None, {}, "x", {"labels": {"a": 1}}])
def test_one_of_which_nothing_can_be_used_stays_captured_and_is_not_served(
    disk: Disk, value: Any
) -> None:
    disk.damage(disk.running, "registered", POD.uid, value=value)
    disk.damage(disk.running, "lives", POD.uid, value=value)
    found = disk.restored()
    assert stages(found) == dict.fromkeys(ALL, Stage.CAPTURED)
    assert served(found) == ALL.keys() - {POD.uid}
    assert "is not served" in found.problems[POD.uid]
    assert POD.uid not in found.registered


def test_a_service_is_captured_as_far_as_its_record_can_be_used(disk: Disk) -> None:
    for path, part, where in (
        (disk.services, "registered", ()),
        (disk.running, "registered", ()),
        (disk.running, "lives", ("workload",)),
    ):
        disk.damage(path, part, UNIT.uid, *where, "labels", value={"-": 5})
        disk.damage(path, part, UNIT.uid, *where, "ports", value=[{"name": "-", "number": 80}, 5])
    found = disk.restored()
    held = found.lives[UNIT.uid]
    assert (held.phase, held.workload.host) == (Phase.HELD, UNIT.host)
    assert [port.number for port in held.workload.ports] == [80]


def test_a_file_of_services_that_is_lost_costs_no_pod_and_no_service(disk: Disk) -> None:
    disk.services.write_bytes(b"{")
    assert stages(disk.restored()) == dict.fromkeys(ALL, Stage.CAPTURED)


def test_a_file_of_what_runs_that_is_lost_leaves_all_captured(disk: Disk) -> None:
    disk.running.write_bytes(b"{")
    found = disk.restored(POD.uid, OTHER.uid)
    assert stages(found) == dict.fromkeys(ALL, Stage.CAPTURED)
    assert served(found) == {UNIT.uid}
    assert found.problems.keys() == {POD.uid, OTHER.uid}


def test_held_services_stay_held_after_the_next_start(disk: Disk) -> None:
    disk.running.write_bytes(b"{")
    found = disk.restored(POD.uid)
    record.save(disk.running, Record(found.registered, found.lives))
    again = disk.restored(POD.uid)
    assert again.lives == found.lives
    assert again.problems.keys() == {POD.uid}


def test_one_that_is_registered_again_is_never_let_go_in_between() -> None:
    held = Life(msgspec.structs.replace(POD, labels={}), Phase.HELD)
    assert step({POD.uid: held}, {}, Facts()).lives == {POD.uid: held}
    known = known_again(held, POD)
    assert known == Life(POD, Phase.CAPTURED)
    assert known_again(known, OTHER) is known


def test_one_that_is_given_up_is_let_go() -> None:
    given_up = known_again(Life(POD, Phase.HELD), None)
    assert given_up.phase is Phase.RELEASING
    (placed,) = step({POD.uid: given_up}, {}, Facts(observed=False)).placements
    assert placed.stage is Stage.PINNED


def test_an_entry_under_a_name_that_none_can_have_costs_itself(disk: Disk) -> None:
    disk.damage(disk.running, "lives", "../x", value=1)
    assert stages(disk.restored()) == dict.fromkeys(ALL, Stage.CAPTURED)
