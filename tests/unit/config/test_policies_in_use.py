"""Where AuthorizationPolicies are lost, their namespaces take nothing until they are back."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from meshd.api.base import Key
from meshd.api.read import read_objects
from meshd.compile.explain.authorization import Facts
from meshd.compile.explain.judging import judged
from meshd.compile.replacement.lost_configuration import closed_for_lost
from meshd.config.policies_in_use import PoliciesInUse, Seen, in_use
from meshd.config.store import Store
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry import snapshots
from meshd.registry.snapshots import Given
from tests.unit import storing
from tests.waiting import eventually

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: NAME, namespace: SPACE}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{to: [{operation: {paths: [/x]}}]}]
"""
EVERYTHING = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
A, B = (Key("AuthorizationPolicy", "shop", name) for name in "ab")


def policy(name: str, space: str = "shop") -> str:
    return POLICY.replace("NAME", name).replace("SPACE", space)


def put(store: Store, text: str) -> None:
    storing.put(store, [read.object for read in read_objects(text, "a.yaml")])


class Node:
    """A store and the record beside it, as a process has them."""

    def __init__(self, home: Path) -> None:
        (home / "state").mkdir(exist_ok=True)
        self.store = Store(home / "files", home / "state")
        self.record = home / "state" / "policies.json"
        self.policies = PoliciesInUse(self.record, self.store, lambda: None)

    async def _write(self) -> None:
        task = asyncio.create_task(self.policies.run())
        await asyncio.to_thread(eventually, self.record.exists, "the record is written")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def write(self) -> None:
        asyncio.run(self._write())

    def taken(self) -> snapshots.Taken:
        return snapshots.take(Given.of(self.store), (), MeshOptions(), "198.19.0.0/16")

    def allows(self, space: str) -> bool:
        """What no policy is about, in a namespace."""
        given = Given.of(self.store)
        snapshot = self.taken().snapshot
        if given.is_partly_lost:
            snapshot = closed_for_lost(snapshot, given.given_up, given.missing)
        workload = Workload(uid=f"{space}.db", name="db", namespace=space, netns="/n")
        return judged(snapshot, workload, Facts(), None).allowed


def test_a_namespace_whose_tokens_were_read_takes_nothing_once_that_is_lost(tmp_path: Path) -> None:
    node = Node(tmp_path)
    put(
        node.store,
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n"
        "metadata: {name: users, namespace: shop}\nspec: {jwtRules: []}\n",
    )
    node.write()
    (tmp_path / "state" / "applied.json").write_text("")
    again = Node(tmp_path)
    assert not again.allows("shop")
    assert again.allows("other")
    told = "namespace shop, because RequestAuthentication shop/users is among what was lost"
    assert any(told in one for one in again.taken().problems)


@pytest.fixture
def lost(tmp_path: Path) -> Node:
    """A node that has lost two policies of one namespace."""
    node = Node(tmp_path)
    put(node.store, policy("a") + "---" + policy("b"))
    node.write()
    (tmp_path / "state" / "applied.json").write_text("")
    return Node(tmp_path)


def test_a_namespace_whose_policies_are_lost_takes_nothing(lost: Node) -> None:
    assert lost.store.lost
    assert not lost.allows("shop")
    assert lost.allows("other")
    lost.policies.look()
    assert not lost.allows("shop")
    (a, _) = (one for one in lost.taken().problems if "everything is denied" in one)
    assert "namespace shop, because AuthorizationPolicy shop/a is among what was lost" in a


def test_it_takes_what_policies_allow_that_are_applied_again(lost: Node) -> None:
    lost.policies.look()
    put(lost.store, policy("a"))
    lost.policies.look()
    assert not lost.allows("shop")
    put(lost.store, policy("b"))
    lost.policies.look()
    assert lost.allows("shop")


def test_what_replaces_all_that_was_lost_replaces_policies(lost: Node) -> None:
    put(lost.store, EVERYTHING)
    assert not lost.store.lost
    lost.policies.look()
    assert lost.allows("shop")
    assert not lost.store.policies_in_use


def test_nothing_else_that_is_lost_denies_anything(tmp_path: Path) -> None:
    node = Node(tmp_path)
    put(node.store, EVERYTHING)
    node.policies.look()
    (tmp_path / "state" / "applied.json").write_text("")
    again = Node(tmp_path)
    assert again.store.lost
    assert again.allows("shop")


def test_a_record_that_cannot_be_read_is_told(lost: Node, caplog: pytest.LogCaptureFixture) -> None:
    lost.record.write_text("{}")
    again = Node(lost.record.parent.parent)
    assert not again.store.policies_in_use
    assert "namespaces are not closed if their policies about requests are lost" in caplog.text


BEFORE = frozenset({A, B})
BOTH, ONE, NONE = (Seen(frozenset(found), ()) for found in ({A, B}, {A}, set[Key]()))


@pytest.mark.parametrize(
    ("seen", "now", "left"),
    [
        (BOTH, ONE, {A}),
        (BOTH, Seen(ONE.policies, ("f",)), {A, B}),
        (Seen(BOTH.policies, ("f",)), Seen(ONE.policies, ("f",)), {A}),
        (Seen(BOTH.policies, ("f",)), Seen(ONE.policies, ("f", "g")), {A, B}),
        (Seen(NONE.policies, ("f",)), Seen(ONE.policies, ("f",)), {A, B}),
        (Seen(NONE.policies, ("f",)), ONE, {A}),
        (NONE, Seen(NONE.policies, ("f",)), {A, B}),
    ],
)
def test_what_goes_alone_was_deleted_and_what_goes_with_other_things_is_lost(
    seen: Seen, now: Seen, left: set[Key]
) -> None:
    assert in_use(BEFORE, seen, now) == left
