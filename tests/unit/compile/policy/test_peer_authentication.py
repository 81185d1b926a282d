"""Which PeerAuthentication counts for a workload."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.api.base import ObjectMeta, WorkloadSelector
from meshd.api.peer_authentication.types import (
    MutualTLS,
    PeerAuthentication,
    PeerAuthenticationSpec,
)
from meshd.compile.policy.peer_authentication import Mode, peer_policy
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.workload import Workload

REVIEWS = Workload(
    uid="default.reviews",
    name="reviews",
    namespace="default",
    netns="/run/netns/reviews",
    labels={"app": "reviews", "version": "v1"},
)


def policy(
    mode: str,
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    ports: dict[int, str] | None = None,
    **meta: str,
) -> PeerAuthentication:
    return PeerAuthentication(
        metadata=ObjectMeta(name=meta.get("name", "policy"), namespace=namespace, **_age(meta)),
        spec=PeerAuthenticationSpec(
            selector=WorkloadSelector(match_labels=labels) if labels else None,
            mtls=MutualTLS(mode=mode),  # type: ignore[arg-type]
            port_level_mtls={
                port: MutualTLS(mode=wanted)  # type: ignore[arg-type]
                for port, wanted in (ports or {}).items()
            },
        ),
    )


def _age(meta: dict[str, str]) -> dict[str, Any]:
    return {"creation_timestamp": meta["created"]} if "created" in meta else {}


MESH = policy("STRICT", "istio-system")
OWN_NAMESPACE = policy("DISABLE")
OWN = policy("PERMISSIVE", labels={"app": "reviews"})


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ((), Mode.PERMISSIVE),
        ((MESH,), Mode.STRICT),
        ((MESH, OWN_NAMESPACE), Mode.DISABLE),
        ((OWN_NAMESPACE, MESH, OWN), Mode.PERMISSIVE),
        ((MESH, policy("UNSET")), Mode.STRICT),
        ((policy("STRICT", labels={"app": "ratings"}),), Mode.PERMISSIVE),
        ((policy("STRICT", "other"),), Mode.PERMISSIVE),
        ((policy("STRICT", "istio-system", labels={"app": "reviews"}),), Mode.PERMISSIVE),
    ],
)
def test_the_most_specific_one_that_says_anything_counts(
    policies: tuple[PeerAuthentication, ...], expected: Mode
) -> None:
    assert peer_policy(policies, REVIEWS, "istio-system").mode is expected


def test_the_oldest_of_equals_counts() -> None:
    young = policy("STRICT", name="a", created="2026-02-01T00:00:00Z")
    old = policy("DISABLE", name="b", created="2026-01-01T00:00:00Z")
    assert peer_policy((young, old), REVIEWS, "istio-system").mode is Mode.DISABLE


def test_ports_may_differ_and_unset_ones_follow_the_rest() -> None:
    own = policy("STRICT", labels={"app": "reviews"}, ports={9080: "DISABLE", 9081: "UNSET"})
    found = peer_policy((own,), REVIEWS, "istio-system")
    assert (found.mode_of(9080), found.mode_of(9081), found.mode_of(1)) == (
        Mode.DISABLE,
        Mode.STRICT,
        Mode.STRICT,
    )


def test_ports_of_a_whole_namespace_do_not_count() -> None:
    found = peer_policy((policy("STRICT", ports={9080: "DISABLE"}),), REVIEWS, "istio-system")
    assert found.mode_of(9080) is Mode.STRICT


@pytest.mark.parametrize(
    "other",
    [
        policy("PERMISSIVE", name="a"),
        policy("DISABLE", name="a", created="2020-01-01T00:00:00Z"),
        policy("PERMISSIVE", labels={"app": "reviews"}, ports={80: "DISABLE"}),
        MESH,
    ],
    ids=["first by name", "older", "own, with ports", "of the mesh"],
)
def test_what_stands_for_a_policy_beats_all_others_of_its_namespace(
    other: PeerAuthentication,
) -> None:
    closed = ClosedPolicy.named("default", "z")
    found = peer_policy((other, closed), REVIEWS, "istio-system")
    assert (found.mode, found.port_modes) == (Mode.STRICT, {})
    said = "PeerAuthentication default/z: not in force, so mutual TLS only"
    assert str(found.origin_of(80)) == said


def test_what_stands_for_a_policy_of_the_mesh_beats_all_others_of_the_mesh() -> None:
    closed = ClosedPolicy.named("istio-system", "z")
    of_the_mesh = policy("PERMISSIVE", "istio-system", name="a")
    assert peer_policy((of_the_mesh, closed), REVIEWS, "istio-system").mode is Mode.STRICT
    assert peer_policy((closed, OWN_NAMESPACE), REVIEWS, "istio-system").mode is Mode.DISABLE


def test_what_stands_for_a_policy_says_nothing_of_other_namespaces() -> None:
    closed = ClosedPolicy.named("other", "z")
    assert peer_policy((closed,), REVIEWS, "istio-system").mode is Mode.PERMISSIVE
