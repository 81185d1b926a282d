"""What a WorkloadEntry declares takes nothing away from a workload that was there before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from meshd.api.base import Object
from meshd.config.admission import admit
from meshd.model.workload import HostService, NamedPort, Placement, Stage, Workload
from meshd.node.declarations import Declarations, intruders, without_taken
from meshd.node.mesh import Mesh
from meshd.node.reconciler import oldest_first
from meshd.roles.mesh import assembled
from meshd.settings import Paths, Settings
from meshd.workloads.host.units import cgroup_of
from meshd.workloads.intent import Action, Intent
from tests.unit import storing
from tests.unit.node.enrolling_world import contained, hosted

WEB = hosted()


def declared(unit: str, port: int, name: str = "a0", namespace: str = "attacker") -> Workload:
    return Workload(
        uid=f"{namespace}.{name}",
        name=name,
        namespace=namespace,
        netns="",
        ports=(NamedPort("http", port),),
        host=HostService(cgroup=cgroup_of(unit), unit=unit, declared=True),
    )


def enrolling(workload: Workload, action: Action = Action.ENROLL) -> dict[str, Intent]:
    return {workload.uid: Intent(number=1, action=action, uid=workload.uid, workload=workload)}


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (declared("web.service", 81), "web.service is enrolled as shop/web"),
        (declared("web.service", 8080), "web.service is enrolled as shop/web"),
        (declared("api.service", 8080), "port 8080 is captured for shop/web already"),
    ],
)
@pytest.mark.parametrize("is_in_work", [False, True])
def test_a_declaration_of_what_another_workload_has_is_refused(
    wanted: Workload, reason: str, is_in_work: bool
) -> None:
    there = [] if is_in_work else [WEB]
    accepted, (problem,) = without_taken([wanted], there, enrolling(WEB) if is_in_work else {})
    assert accepted == ()
    assert problem.startswith("WorkloadEntry attacker/a0: annotation meshd.io/unit: ")
    assert reason in problem


def test_the_ports_of_an_enrollment_that_may_be_taken_back_are_kept() -> None:
    again = {
        WEB.uid: Intent(
            number=1, action=Action.UNDO, uid=WEB.uid, workload=hosted(port=1), registered=WEB
        )
    }
    accepted, problems = without_taken([declared("api.service", 8080)], [], again)
    assert (accepted, len(problems)) == ((), 1)


def test_the_first_of_two_declarations_is_taken_and_what_is_free_too() -> None:
    first, second = declared("a.service", 80), declared("a.service", 81, "a1")
    third = declared("b.service", 82, "a2")
    accepted, problems = without_taken([first, second, third], [WEB], {})
    assert accepted == (first, third)
    assert len(problems) == 1


def test_what_was_declared_before_may_change_and_wins_over_what_comes_later() -> None:
    before = declared("a.service", 80, "z")
    after = declared("a.service", 81, "z")
    assert without_taken([after], [before], {}) == ((after,), ())
    assert without_taken([declared("a.service", 80)], [before], {})[0] == ()


def test_a_declaration_takes_over_its_own_unit_but_no_other_workload_of_its_name() -> None:
    own = declared("web.service", 8080, "web", "shop")
    assert without_taken([own], [WEB], {})[0] == (own,)
    for there in (hosted("api"), contained(1)):
        named = msgspec.structs.replace(there, uid=own.uid)
        accepted, (problem,) = without_taken([own], [named], {})
        assert accepted == ()
        assert "shop/web is " in problem


@pytest.mark.parametrize("action", [Action.ENROLL, Action.UNDO, Action.UNENROLL])
def test_a_declaration_waits_for_what_is_in_work_of_its_name(action: Action) -> None:
    own = declared("web.service", 8080, "web", "shop")
    assert without_taken([own], [WEB], enrolling(WEB, action))[0] == ()


def test_a_unit_in_the_cgroup_of_another_has_to_leave_it() -> None:
    young = declared("web.service", 8080)
    assert intruders([WEB, declared("a.service", 80, "a1"), young]) == (young.uid,)
    assert intruders([young, WEB]) == ()


def test_capture_is_told_of_the_oldest_first_whatever_the_names() -> None:
    young, old = (Placement(one, Stage.CAPTURED) for one in (declared("a.service", 8080), WEB))
    told = oldest_first((young, old), (old.workload.uid, young.workload.uid))
    assert told == (old, young)
    assert oldest_first((young, old), (young.workload.uid,)) == (old, young)


def test_declarations_may_swap_units_and_ports_in_one_change() -> None:
    a, b, c = (declared(f"{unit}.service", 80 + n, unit) for n, unit in enumerate("abc"))
    swapped = (declared("b.service", 81, "a"), declared("a.service", 80, "b"))
    assert without_taken(swapped, [a, b], {}) == (swapped, ())
    around = (
        declared("b.service", 81, "a"),
        declared("c.service", 82, "b"),
        declared("a.service", 80, "c"),
    )
    assert without_taken(around, [a, b, c, WEB], {}) == (around, ())
    assert without_taken(reversed(around), [a, b, c], {})[0] == tuple(reversed(around))


def test_a_unit_stays_with_whoever_cannot_have_the_one_that_it_declares() -> None:
    a, b = declared("a.service", 80, "a"), declared("b.service", 81, "b")
    wanted = [declared("b.service", 81, "a"), declared("web.service", 80, "b")]
    accepted, problems = without_taken(wanted, [a, b, WEB], {})
    assert accepted == ()
    assert [problem.rpartition(": ")[2].partition(" is enrolled")[0] for problem in problems] == [
        "web.service",
        "b.service",
    ]


ENTRY = admit(
    {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": "a0",
            "namespace": "attacker",
            "annotations": {"meshd.io/unit": "a.service"},
        },
        "spec": {"address": "198.18.0.9", "ports": {"http": 80}},
    }
)


def withheld(mesh: Mesh) -> None:
    mesh.store.withhold(str)


def nothing_in_force(mesh: Mesh) -> None:
    mesh.store.withhold_all("died")


def lost_by_a_server(mesh: Mesh) -> None:
    mesh.store.follow({}, lost=("applied.json of s1",))


def not_taken_from_a_server(mesh: Mesh) -> None:
    mesh.store.follow({}, unread=(ENTRY.key,))


def new_mesh(place: Path) -> Mesh:
    paths = Paths(place / "etc", place / "lib", place / "run")
    for directory in (paths.config_directory, paths.lib, paths.resolver_run):
        directory.mkdir(parents=True)
    paths.workloads.parent.mkdir(parents=True, exist_ok=True)
    return assembled(Settings(), paths)


def told(mesh: Mesh, *objects: Object) -> None:
    mesh.store.follow({one.key: one for one in objects})


def test_a_service_is_in_the_mesh_after_a_reboot_although_its_entry_is_not_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of workloads does not outlive a reboot."""
    mesh = new_mesh(tmp_path)
    storing.put(mesh.store, [ENTRY])
    monkeypatch.setattr(mesh.own, "every", ("198.18.0.9",))
    declarations = Declarations(mesh, dict)
    withheld(mesh)
    for _ in range(2):
        declarations.follow()
        (registered,) = mesh.reconciler.known.registered.values()
        assert (registered.uid, registered.labels) == ("attacker.a0", {})
        assert registered.host
        assert (registered.host.unit, registered.ports) == ("a.service", (NamedPort("http", 80),))
    assert any(f"{ENTRY.key} is not in force" in one for one in mesh.all_problems())


@pytest.mark.parametrize(
    "missing", [withheld, nothing_in_force, lost_by_a_server, not_taken_from_a_server]
)
def test_a_declared_service_stays_in_the_mesh_until_its_entry_is_deleted(
    tmp_path: Path, missing: Callable[[Mesh], None]
) -> None:
    mesh = new_mesh(tmp_path)
    storing.put(mesh.store, [ENTRY])
    mesh.reconciler.register([declared("a.service", 80)])
    declarations = Declarations(mesh, dict)
    missing(mesh)
    declarations.follow()
    assert list(mesh.reconciler.known.registered) == ["attacker.a0"]
    assert any(f"{ENTRY.key} is not in force" in one for one in mesh.all_problems())
    storing.delete(mesh.store, [ENTRY.key])
    told(mesh)
    declarations.follow()
    assert mesh.reconciler.known.registered == {}
