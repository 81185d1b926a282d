"""Each step of a workload's way, and what must hold whatever happens on it."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.workload import Identity, Observation, Stage, Workload
from meshd.workloads.lifecycle import (
    Facts,
    Life,
    Phase,
    Plan,
    owners_accepted,
    owners_present,
    step,
)


def _workload(uid: str = "a", netns: str = "/n/1", account: str = "default") -> Workload:
    return Workload(uid=uid, name=uid, namespace="ns", netns=netns, service_account=account)


def _facts(
    stage: Stage = Stage.ABSENT,
    *,
    accepted: bool = False,
    present: bool = False,
    observed: bool = True,
) -> Facts:
    return Facts(
        observations={"a": Observation("a", stage)},
        observed=observed,
        accepted={"a"} if accepted else (),
        present={"a"} if present else (),
    )


def _after(life: Life, facts: Facts, wanted: Workload | None = None) -> Plan:
    return step({"a": life}, {"a": wanted} if wanted else {}, facts)


def _phase(plan: Plan) -> Phase | None:
    life = plan.lives.get("a")
    return life.phase if life else None


def test_a_new_workload_is_pinned_first_and_not_served_yet() -> None:
    plan = step({}, {"a": _workload()}, Facts())
    assert [(p.workload.uid, p.stage) for p in plan.placements] == [("a", Stage.PINNED)]
    assert not plan.served
    assert plan.identities == (Identity("cluster.local", "ns", "default"),)


@pytest.mark.parametrize(
    ("phase", "facts", "following"),
    [
        (Phase.JOINING, _facts(), Phase.JOINING),
        (Phase.JOINING, _facts(Stage.PINNED), Phase.LISTENING),
        (Phase.LISTENING, _facts(Stage.PINNED), Phase.LISTENING),
        (Phase.LISTENING, _facts(Stage.PINNED, accepted=True), Phase.CAPTURED),
        (Phase.CAPTURED, _facts(observed=False), Phase.CAPTURED),
        (Phase.CAPTURED, _facts(Stage.PINNED), Phase.CAPTURED),
    ],
)
def test_the_way_in(phase: Phase, facts: Facts, following: Phase) -> None:
    assert _phase(_after(Life(_workload(), phase), facts, _workload())) is following


@pytest.mark.parametrize(
    ("phase", "facts", "following"),
    [
        (Phase.JOINING, _facts(), Phase.CLOSING),
        (Phase.LISTENING, _facts(Stage.PINNED), Phase.RELEASING),
        (Phase.CAPTURED, _facts(Stage.CAPTURED), Phase.RELEASING),
        (Phase.RELEASING, _facts(Stage.CAPTURED), Phase.RELEASING),
        (Phase.RELEASING, _facts(observed=False), Phase.RELEASING),
        (Phase.RELEASING, _facts(Stage.PINNED, present=True), Phase.CLOSING),
        (Phase.CLOSING, _facts(Stage.PINNED, present=True), Phase.CLOSING),
        (Phase.CLOSING, _facts(Stage.PINNED), Phase.LETTING_GO),
        (Phase.LETTING_GO, _facts(Stage.PINNED), Phase.LETTING_GO),
        (Phase.LETTING_GO, _facts(observed=False), Phase.LETTING_GO),
        (Phase.LETTING_GO, _facts(), None),
    ],
)
def test_the_way_out(phase: Phase, facts: Facts, following: Phase | None) -> None:
    plan = _after(Life(_workload(), phase), facts)
    assert _phase(plan) is following
    assert plan.gone == (set() if following else {"a"})


def test_another_namespace_goes_all_the_way_out_with_the_old_one() -> None:
    old, new = _workload(netns="/n/1"), _workload(netns="/n/2")
    plan = _after(Life(old, Phase.CAPTURED), _facts(Stage.CAPTURED, accepted=True), new)
    assert _phase(plan) is Phase.RELEASING
    assert plan.placements[0].workload == old
    assert plan.placements[0].stage is Stage.PINNED


@pytest.mark.parametrize(
    ("before", "now", "phase"),
    [(1, 2, Phase.RELEASING), (1, 1, Phase.CAPTURED), (0, 2, Phase.CAPTURED)],
)
def test_another_namespace_at_the_same_path_goes_out_too(
    before: int, now: int, phase: Phase
) -> None:
    old = msgspec.structs.replace(_workload(), netns_cookie=before)
    new = msgspec.structs.replace(_workload(), netns_cookie=now)
    plan = step({"a": Life(old, Phase.CAPTURED)}, {"a": new}, Facts())
    assert plan.lives["a"].phase is phase


def test_another_identity_is_served_in_place_and_the_old_one_is_kept_until_proxies_switched() -> (
    None
):
    new = _workload(account="other")
    plan = _after(Life(_workload(), Phase.CAPTURED), _facts(Stage.CAPTURED, accepted=True), new)
    assert _phase(plan) is Phase.CAPTURED
    assert plan.served == {"a": new}
    assert [i.service_account for i in plan.identities] == ["default", "other"]
    plan = step(plan.lives, {"a": new}, _facts(Stage.CAPTURED))
    assert [i.service_account for i in plan.identities] == ["default", "other"]
    plan = step(plan.lives, {"a": new}, _facts(Stage.CAPTURED, accepted=True))
    assert [i.service_account for i in plan.identities] == ["other"]


def test_a_gateways_own_ports_are_not_captured() -> None:
    facts = msgspec.structs.replace(_facts(), bypass={"a": (80, 443)})
    assert step({}, {"a": _workload()}, facts).placements[0].bypass_inbound_ports == (80, 443)


def test_listeners_are_a_workloads_when_all_of_them_are_accepted() -> None:
    published = ["a|in", "a|out", "b|in", "b|out", "shared"]

    def owner(name: str) -> str:
        uid, bar, _ = name.partition("|")
        return uid if bar else ""

    accepted = {"a|in", "a|out", "b|in", "shared"}
    assert owners_accepted(published, accepted, owner) == {"a"}
    assert owners_present(published, owner) == {"a", "b"}


# ---- whatever happens


@dataclasses.dataclass
class _World:
    """Capture and the pool, which do what they are told some time later, or are away."""

    plan: Plan = dataclasses.field(default_factory=lambda: step({}, {}, Facts()))
    wanted: dict[str, Workload] = dataclasses.field(default_factory=dict[str, Workload])
    proxies: int = 1
    capture_told: bool = False
    netns: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    """Pinned namespaces by uid."""
    captured: set[str] = dataclasses.field(default_factory=set[str])
    open: dict[str, Workload] = dataclasses.field(default_factory=dict[str, Workload])
    """Listeners in the proxies."""

    def facts(self) -> Facts:
        stages = {
            uid: Stage.CAPTURED if uid in self.captured else Stage.PINNED for uid in self.netns
        }
        return Facts(
            observations={uid: Observation(uid, stage) for uid, stage in stages.items()},
            observed=self.capture_told,
            accepted={
                uid
                for uid, workload in self.plan.served.items()
                if self.proxies and self.open.get(uid) == workload
            },
            present=self.plan.served.keys() | self.open.keys(),
        )

    def decide(self) -> None:
        self.plan = step(self.plan.lives, self.wanted, self.facts())

    def capture(self) -> None:
        """Looks at whether what it is told is safe: nobody else will."""
        self.capture_told = True
        placed = {p.workload.uid: p for p in self.plan.placements}
        for uid, placement in placed.items():
            netns = self.netns.setdefault(uid, placement.workload.netns)
            assert netns == placement.workload.netns, "another namespace under a pinned path"
            if placement.stage is Stage.CAPTURED:
                assert uid in self.open or uid in self.captured or not self.proxies
                self.captured.add(uid)
            else:
                self.captured.discard(uid)
        for uid in self.netns.keys() - placed.keys():
            assert uid not in self.captured, "let go of while captured"
            assert uid not in self.open, "let go of while proxies listen in it"
            del self.netns[uid]

    def pool(self) -> None:
        if self.proxies:
            for uid in self.plan.served.keys() - self.open.keys():
                assert uid in self.netns, "a listener without a namespace"
            for uid in self.open.keys() - self.plan.served.keys():
                assert uid not in self.captured, "nobody listens where traffic is sent"
            self.open = dict(self.plan.served)

    def settle(self) -> None:
        if not self.proxies:
            self.toggle_proxies()
        for _ in range(20):
            self.decide()
            self.capture()
            self.pool()

    def toggle_proxies(self) -> None:
        """They end, or come back with nothing."""
        self.proxies = 1 - self.proxies
        self.open = {}


_REGISTER = st.builds(
    _workload,
    st.sampled_from(("a", "b")),
    st.sampled_from(("/n/1", "/n/2")),
    st.sampled_from(("x", "y")),
)
_EVENTS = st.lists(
    st.one_of(
        _REGISTER,
        st.sampled_from(("a", "b")).map(lambda uid: f"-{uid}"),
        st.sampled_from(("capture", "pool", "decide") * 3 + ("toggle_proxies",)),
    ),
    max_size=60,
)


def _happen(world: _World, event: Workload | str) -> None:
    if isinstance(event, Workload):
        world.wanted[event.uid] = event
    elif event.startswith("-"):
        world.wanted.pop(event[1:], None)
    elif event == "decide":
        world.decide()
    else:
        getattr(world, event)()


@settings(deadline=None, max_examples=400)
@given(st.lists(_REGISTER, max_size=2), _EVENTS)
def test_capture_and_proxies_are_never_told_what_is_not_safe(
    before_all: list[Workload], events: list[Workload | str]
) -> None:
    world = _World()
    for workload in before_all:
        _happen(world, workload)
    world.settle()
    for event in events:
        before = {uid for uid, life in world.plan.lives.items() if life.phase is Phase.CAPTURED}
        _happen(world, event)
        captured = {uid for uid, life in world.plan.lives.items() if life.phase is Phase.CAPTURED}
        if event == "decide":
            assert captured - before <= {u for u in world.open if world.proxies}
            same = {u for u in before if _same_netns(world, u)}
            assert same <= captured, "taken out of the mesh though nobody asked for it"
    world.settle()
    assert world.plan.lives.keys() == world.wanted.keys()
    assert world.captured == world.wanted.keys() == world.open.keys()
    assert world.netns == {uid: workload.netns for uid, workload in world.wanted.items()}
    assert world.plan.served == world.wanted
    accounts = {workload.service_account for workload in world.wanted.values()}
    assert {identity.service_account for identity in world.plan.identities} == accounts


def _same_netns(world: _World, uid: str) -> bool:
    life, wanted = world.plan.lives.get(uid), world.wanted.get(uid)
    return bool(life and wanted and life.workload.netns == wanted.netns)
