"""What other nodes are told of a node's workloads."""

from __future__ import annotations

import msgspec

from meshd.model.workload import Workload
from meshd.workloads.lifecycle import Life, Phase
from meshd.workloads.record import elsewhere, roster


def workload(uid: str, *, ready: bool = True) -> Workload:
    return Workload(uid=uid, name=uid, namespace="n", netns="/run/ns", ready=ready)


def is_ready(one: Workload, phase: Phase | None, *, enrolled: bool = True) -> bool:
    lives = {one.uid: Life(one, phase)} if phase else {}
    (seen,) = roster("here", {one.uid: one}, lives, {one.uid} if enrolled else ())
    assert (seen.node, seen.netns) == ("here", "")
    return seen.ready


def test_nobody_speaks_mutual_tls_to_a_workload_before_it_is_captured() -> None:
    for phase in (None, *Phase):
        assert is_ready(workload("w"), phase) is (phase is Phase.CAPTURED)


def test_outside_the_mesh_only_its_own_readiness_counts() -> None:
    assert is_ready(workload("w"), None, enrolled=False)
    assert not is_ready(workload("w", ready=False), None, enrolled=False)
    assert not is_ready(workload("w", ready=False), Phase.CAPTURED)


def test_the_order_never_changes() -> None:
    both = [workload("b"), workload("a")]
    forwards = roster("n", {one.uid: one for one in both}, {}, ())
    assert forwards == roster("n", {one.uid: one for one in reversed(both)}, {}, ())


def test_uids_of_other_nodes_are_none_of_ours() -> None:
    (told,) = roster("far", {"w": workload("w")}, {}, ())
    assert elsewhere(told).uid == "far/w"


def test_what_a_workload_speaks_is_its_nodes_word_not_its_own() -> None:
    claims = msgspec.structs.replace(workload("w"), protocols=("hbone",))
    (told,) = roster("n", {"w": claims}, {}, ())
    assert told.protocols == ()
    (told,) = roster("n", {"w": workload("w")}, {}, (), tunneled={"w"})
    assert told.protocols == ("hbone",)
