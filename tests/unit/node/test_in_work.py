"""What the mesh role died of is not put in force again, and nothing else is touched."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import Object
from meshd.api.write import to_json
from meshd.base import attempts
from meshd.base.json_values import JsonObject
from meshd.config.admission import admit
from meshd.config.store import Store
from meshd.config.withheld import closed_object
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.workload import Workload
from meshd.node import in_work, stages
from meshd.node.in_work import InWork, new_among
from meshd.node.stages import Progress, Step
from tests.unit import storing
from tests.waiting import eventually


def service(name: str, port: int = 80) -> Object:
    spec: JsonObject = {"ports": [{"port": port}], "selector": {"app": "x"}}
    meta: JsonObject = {"name": name, "namespace": "shop"}
    return admit({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})


def policy(name: str, mode: str = "PERMISSIVE") -> Object:
    meta: JsonObject = {"name": name, "namespace": "shop"}
    return admit(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": meta,
            "spec": {"mtls": {"mode": mode}},
        }
    )


def workload_entry(name: str) -> Object:
    meta: JsonObject = {"name": name, "namespace": "shop"}
    return admit(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": meta,
            "spec": {"address": "198.18.0.9", "labels": {"app": "x"}},
        }
    )


def remote(name: str, node: str = "n", **labels: str) -> Workload:
    return Workload(
        uid=f"shop.{name}", name=name, namespace="shop", netns="", node=node, labels=labels
    )


class Role:
    """A process of it; the next one begins with what this one left on disk."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "config.d", directory)
        self.work = InWork(directory / "attempts.json", self.store)
        self.elsewhere: tuple[Workload, ...] = ()

    @property
    def names(self) -> set[str]:
        return {key.name for key in self.store.objects}

    def hear(self, *told: Workload) -> set[str]:
        self.elsewhere = self.work.heard(self.work.noted(told, self.elsewhere))
        return {one.name for one in self.elsewhere}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "config.d").mkdir()
    role = Role(tmp_path)
    storing.put(role.store, [service("good")])
    role.work.ended()
    return tmp_path


def test_an_object_that_kills_is_left_out_at_the_fourth_start_and_stays_on_disk(
    directory: Path,
) -> None:
    storing.put(Role(directory).store, [service("killer")])
    for _ in range(2):
        assert Role(directory).names == {"good", "killer"}
    role = Role(directory)
    assert role.names == {"good"}
    (problem,) = role.work.problems
    assert problem.startswith("Service shop/killer is left out")
    assert "killer" in (directory / "applied.json").read_text()
    storing.put(role.store, [service("killer", port=81)])
    role.work.ended()
    again = Role(directory)
    assert again.names == {"good", "killer"}
    assert not again.work.problems


def test_an_object_that_kills_can_be_deleted(directory: Path) -> None:
    storing.put(Role(directory).store, [service("killer")])
    for _ in range(2):
        Role(directory)
    role = Role(directory)
    storing.delete(role.store, [service("killer").key])
    assert "killer" not in (directory / "applied.json").read_text()
    assert not role.work.problems


def test_a_workload_of_another_node_that_kills_is_left_out_whatever_else_it_says(
    directory: Path,
) -> None:
    for number in range(3):
        role = Role(directory)
        assert role.hear(remote("good")) == {"good"}
        role.work.attempts.done()
        assert role.hear(remote("good"), remote("killer", v=str(number))) == {"good", "killer"}
    role = Role(directory)
    assert role.hear(remote("good"), remote("killer", v="9")) == {"good"}
    assert role.hear(remote("killer", node="other")) == {"killer"}
    (problem,) = role.work.problems
    assert problem.startswith("workload n/shop.killer is left out")


def test_a_policy_that_is_left_out_stays_so_when_other_objects_change(directory: Path) -> None:
    storing.put(Role(directory).store, [policy("killer")])
    for _ in range(2):
        Role(directory)
    for number in range(3):
        role = Role(directory)
        assert isinstance(role.store.objects[policy("killer").key], ClosedPolicy)
        storing.put(role.store, [service("good", port=90 + number)])
        assert isinstance(role.store.objects[policy("killer").key], ClosedPolicy)
        role.work.ended()


@pytest.mark.parametrize(
    "killer",
    [policy("killer"), service("killer"), workload_entry("killer")],
    ids=lambda one: one.KIND,
)
def test_a_replacement_is_left_out_too_if_processes_die_of_it(
    directory: Path, killer: Object
) -> None:
    storing.put(Role(directory).store, [killer])
    for _ in range(2):
        Role(directory)
    for _ in range(3):
        role = Role(directory)
        assert [one.key for one in role.store.standing] == [killer.key]
        assert not role.store.lost
    role = Role(directory)
    for _ in range(2):
        assert role.names == {"good"}
        assert not role.store.standing
        assert [one.key for one in role.store.given_up] == [killer.key]
        assert role.store.lost == (str(killer.key),)
        (said,) = role.store.findings
        assert said.message.startswith(
            f"{killer.key} is not in force, nor is its closed replacement"
        )
        assert any(one.startswith(f"replacement of {killer.key}") for one in role.work.problems)
        storing.put(role.store, [service("good", port=70)])
        role.work.ended()
        role = Role(directory)
    storing.delete(role.store, [killer.key])
    assert not role.store.lost
    assert not role.work.problems


def test_a_replacement_of_an_earlier_start_is_no_suspect(directory: Path) -> None:
    storing.put(Role(directory).store, [service("killer")])
    for _ in range(2):
        Role(directory)
    Role(directory).work.ended()
    for _ in range(5):
        role = Role(directory)
        assert [one.key for one in role.store.standing] == [service("killer").key]
        storing.put(role.store, [service("other")])
        role.work.attempts.done()


def test_a_replacement_from_a_server_is_left_out_if_processes_die_of_it(tmp_path: Path) -> None:
    (tmp_path / "config.d").mkdir()
    closed = closed_object(service("killer"))
    assert closed
    store = Store(tmp_path / "config.d", tmp_path)
    for deaths in range(5):
        store = Store(tmp_path / "config.d", tmp_path)
        InWork(tmp_path / "attempts.json", store, own=False)
        store.follow({}, (closed,))
        assert bool(store.closed) == (deaths < 4)  # nothing is known of it at the first
    assert store.lost == (str(closed.key),)


def test_an_object_that_kills_at_the_first_start_with_it_is_found(directory: Path) -> None:
    for name in ("a", "b", "killer", "z"):
        text = msgspec.json.encode(to_json(service(name))).decode()
        (directory / "config.d" / f"{name}.yaml").write_text(text)
    for _ in range(20):
        role = Role(directory)
        if "killer" in role.names:
            continue  # it dies
        role.work.attempts.done()
        if not role.work.attempts.is_narrowing:
            break
        role.work.attempts.narrow()
    assert Role(directory).names == {"good", "a", "b", "z"}


def test_one_of_many_objects_is_found_though_its_replacement_kills_too(directory: Path) -> None:
    first = Role(directory)
    storing.put(first.store, [service(f"s{number}") for number in range(6)])
    killer, others = "s3", {"good", "s0", "s1", "s2", "s4", "s5"}
    for _ in range(40):
        role = Role(directory)
        if killer in role.names | {one.key.name for one in role.store.standing}:
            continue  # it dies
        role.work.attempts.done()
        if not role.work.attempts.is_narrowing:
            break
        assert role.store.lost  # nothing opens meanwhile
        role.work.attempts.narrow()
        role.work.ended()
    role = Role(directory)
    assert role.names == others
    assert not role.store.standing
    assert role.store.lost == (f"Service shop/{killer}",)
    assert len(role.work.problems) == 2


READS, COMPILES = Progress(reads=True), Progress(compiles=True)
BUSY = Progress(reads=True, compiles=True)


def test_only_what_is_being_compiled_is_blamed(directory: Path) -> None:
    role = Role(directory)
    step, settled = role.work.step, role.work.settled
    role.work.attempts.done()
    for name, is_idle in (("first", True), ("second", False)):
        storing.put(role.store, [service(name)])
        step(Step.READING)
        step(Step.READ)
        settled(COMPILES)
        if is_idle:
            step(Step.COMPILING)
    storing.put(role.store, [service("third")])
    step(Step.READING)
    storing.put(role.store, [service("fourth")])
    settled(BUSY)
    assert working(role) == {"first", "third"}
    step(Step.READ)
    assert working(role) == {"first", "third"}
    settled(BUSY)
    assert working(role) == {"first"}
    again = Role(directory)
    suspects = attempts.parse((directory / "attempts.json").read_bytes())
    assert {name for name, one in suspects.items() if one.deaths} == {"Service shop/first"}
    assert working(again) >= {"first", "second", "third", "fourth"}


def test_a_policy_that_waits_is_blamed_while_it_is_looked_at_and_nothing_else_that_waits(
    directory: Path,
) -> None:
    role = Role(directory)
    step, settled = role.work.step, role.work.settled
    role.work.attempts.done()
    step(Step.READING)
    storing.put(role.store, [service("first"), policy("strict", "STRICT")])
    settled(BUSY)
    assert not role.work.attempts.working
    step(Step.CLOSING)
    name = "PeerAuthentication shop/strict"
    assert {found for found, _ in role.work.attempts.working} == {name}
    settled(BUSY)
    step(Step.READ)
    step(Step.READING)
    assert working(role) >= {"first"}
    step(Step.CLOSED)
    step(Step.READ)
    settled(COMPILES)
    step(Step.COMPILING)
    step(Step.CLOSING)
    step(Step.CLOSED)
    assert {found for found, _ in role.work.attempts.working} == {"Service shop/first", name}


def test_the_replacement_of_a_policy_is_blamed_while_it_is_looked_at() -> None:
    records = frozenset({("replacement of PeerAuthentication shop/a", 1), ("Service shop/b", 1)})
    begun = stages.stepped(stages.Stages(waiting=records), Step.CLOSING, frozenset())
    assert begun.idle == {("Service shop/b", 1)}
    assert stages.stepped(begun, Step.CLOSED, frozenset()).idle == records


def test_objects_are_struck_off_under_steady_change(directory: Path) -> None:
    async def check() -> None:
        role = Role(directory)
        step, settled = role.work.step, role.work.settled
        role.work.attempts.done()
        storing.put(role.store, [service("first")])
        step(Step.READING)
        storing.put(role.store, [service("second")])
        step(Step.READ)
        settled(BUSY)
        step(Step.COMPILING)
        step(Step.READING)
        step(Step.COMPILED)
        settled(BUSY)
        step(Step.COMPILING)
        assert working(role) == {"first", "second"}
        await until(role, {"second"})

    asyncio.run(check())


def test_an_object_is_noted_before_it_is_in_force_and_works_from_then_on(directory: Path) -> None:
    role = Role(directory)
    role.work.attempts.done()
    written = role.store.write(role.store.moment.put([service("coming")]))
    assert "Service shop/coming" in (directory / "attempts.json").read_text()
    for step in (Step.READING, Step.READ, Step.COMPILING, Step.COMPILED):
        role.work.step(step)
        assert not working(role)
    role.work.settled(Progress())
    role.store.adopt(written)
    role.store.tell()
    assert working(role) == {"coming"}
    role.work.step(Step.READING)
    assert working(role) == {"coming"}


def test_an_object_of_a_file_is_noted_before_it_is_in_force(directory: Path) -> None:
    role = Role(directory)
    role.work.attempts.done()
    noted: list[set[str]] = []
    role.store.subscribe(lambda: noted.append(working(role)))
    found = json.dumps(to_json(service("of-file")))
    (directory / "config.d" / "a.yaml").write_text(found)
    role.store.refresh()
    assert working(role) == {"of-file"}
    role.store.refresh()
    (directory / "config.d" / "b.yaml").write_text(found.replace("of-file", "other"))
    role.store.refresh()
    assert noted == [{"of-file"}, {"of-file", "other"}]


def test_an_object_that_a_file_hides_meanwhile_does_not_stay_in_hand(directory: Path) -> None:
    role = Role(directory)
    role.work.attempts.done()
    written = role.store.write(role.store.moment.put([service("a")]))
    (directory / "config.d" / "a.yaml").write_text(json.dumps(to_json(service("a", port=81))))
    role.store.refresh()
    role.store.adopt(written)
    role.store.tell()
    assert not role.work.attempts.in_hand
    assert working(role) == {"a"}


def test_many_workloads_are_noted_in_bounded_parts(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = Role(directory)
    begin, sizes = role.work.attempts.begin, list[int]()

    def counted(records: Any, **given: Any) -> Any:
        sizes.append(len(records))
        return begin(records, **given)

    monkeypatch.setattr(role.work.attempts, "begin", counted)
    told = [remote(f"w{number}") for number in range(2500)]
    assert role.work.heard(role.work.noted(told, ())) == tuple(told)
    assert sizes == [1000, 1000, 500]
    assert not role.work.attempts.in_hand


def test_workloads_are_in_hand_until_they_are_heard_whatever_objects_arrive(
    directory: Path,
) -> None:
    role = Role(directory)
    role.work.attempts.done()
    noted = role.work.noted((remote("w"),), ())
    assert {name for name, _ in role.work.attempts.in_hand} == {"workload n/shop.w"}
    storing.put(role.store, [service("a")])
    assert working(role) == {"a"}
    assert role.work.heard(noted) == (remote("w"),)
    assert working(role) == {"a", "shop.w"}


def test_an_object_that_is_left_out_is_not_tried_because_others_change(directory: Path) -> None:
    storing.put(Role(directory).store, [service("killer")])
    for _ in range(2):
        Role(directory)
    role = Role(directory)
    storing.put(role.store, [service("killer"), service("other")])
    assert role.names == {"good", "other"}
    names = {name for name, _ in role.work.attempts.working}
    assert names == {"start", "Service shop/other", "replacement of Service shop/killer"}


def test_an_object_that_changed_meanwhile_is_not_struck_off(directory: Path) -> None:
    async def check() -> None:
        role = Role(directory)
        role.work.attempts.done()
        for name, port in (("a", 1), ("b", 1), ("a", 2)):
            storing.put(role.store, [service(name, port=port)])
            if port == 1:
                for step in (Step.READING, Step.READ):
                    role.work.step(step)
        role.work.settled(READS)
        await until(role, {"a"})

    asyncio.run(check())


def test_until_something_is_published_nothing_is_struck_off(directory: Path) -> None:
    role = Role(directory)
    role.work.attempts.done()
    storing.put(role.store, [service("a")])
    role.work.step(Step.READING)
    role.work.step(Step.READ)
    role.work.settled(Progress(publishes=False))
    assert not working(role)
    role.work.step(Step.COMPILING)
    assert working(role) == {"a"}


def test_a_node_that_dies_at_each_start_comes_back_with_nothing_in_force(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = Role(directory)
    for _ in range(40):
        if role.work.attempts.gives_up:
            break
        role = Role(directory)
    assert (role.names, role.store.closed, role.hear(remote("good"))) == (set(), (), set())
    assert [one.startswith("no configuration is in force") for one in role.store.lost] == [True]
    assert role.store.findings
    ended: list[float] = []

    def end_later(seconds: float, _: object) -> None:
        ended.append(seconds)

    async def change() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", end_later)
        storing.put(role.store, [service("good", port=80)])
        assert not ended  # what is found at the start is no change
        role.work.settled(Progress())
        role.work.settled(Progress())
        assert ended == [3600.0]
        storing.put(role.store, [service("good", port=81)])
        assert ended == [3600.0, 1.0]

    asyncio.run(change())
    assert Role(directory).names == {"good"}


def working(role: Role) -> set[str]:
    return {name.rpartition("/")[2] for name, _ in role.work.attempts.working}


async def until(role: Role, names: set[str]) -> None:
    """Wait until these are all that is being worked with."""
    await asyncio.to_thread(eventually, lambda: working(role) == names, "they are struck off")


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_workloads_are_new_if_none_before_was_the_same(now: list[int], then: list[int]) -> None:
    told, before = ([remote(f"w{one}", label=str(one)) for one in some] for some in (now, then))
    names = {one.name for one in before}
    found = new_among(told, before)
    assert {one.name for one in found} >= {one.name for one in told} - names


def test_of_a_large_report_only_what_differs_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [remote(f"w{number:04}") for number in range(1000)]
    told = [*before[:500], remote("new"), remote("w0500", app="b"), *before[501:]]
    named: list[str] = []

    def name(workload: Workload) -> str:
        named.append(workload.name)
        return workload.name

    monkeypatch.setattr(in_work, "_name", name)
    assert [one.name for one in new_among(told, before)] == ["new", "w0500"]
    assert len(named) < 10
