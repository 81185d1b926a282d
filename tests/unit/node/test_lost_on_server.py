"""A server that has lost configuration opens no agent, of whichever version."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any, cast

import pytest

from meshd import wire
from meshd.api.base import ObjectMeta, WorkloadSelector
from meshd.api.peer_authentication.types import (
    MutualTLS,
    MutualTLSMode,
    PeerAuthentication,
    PeerAuthenticationSpec,
)
from meshd.api.write import to_json
from meshd.base.json_values import Json, JsonObject, mapping_at
from meshd.compile.policy.peer_authentication import Mode
from meshd.config import lost_configuration
from meshd.config.store import Store
from meshd.model.snapshot import MeshOptions
from meshd.node.settling import Settling
from meshd.node.sharing import Sharing
from meshd.wire.channel import IsWaiting
from tests.unit import storing
from tests.unit.node.agent_role import ROOT, AgentRole


def policy(
    name: str, mode: MutualTLSMode, namespace: str = "shop", app: str = ""
) -> PeerAuthentication:
    selector = WorkloadSelector(match_labels={"app": app}) if app else None
    return PeerAuthentication(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=PeerAuthenticationSpec(selector=selector, mtls=MutualTLS(mode)),
    )


def server(home: Path) -> Store:
    return Store(home / "server" / "files", home / "server" / "lib")


def told(store: Store, home: Path) -> tuple[JsonObject, ...]:
    """Return the objects that a server with this store tells its agents."""
    mesh = types.SimpleNamespace(
        store=store,
        options=MeshOptions(),
        settling=Settling(),
        elsewhere=(),
        further_problems=[],
        hear_of=print,
        roster=print,
    )

    async def handle(_: wire.ToMesh, __: IsWaiting) -> wire.Message:
        return wire.Done()

    sharing: Any = Sharing(cast("Any", mesh), "here", home / "elsewhere.json", handle)
    return sharing._telling()()


@pytest.mark.parametrize(
    "before",
    [
        (policy("default", "STRICT", ROOT),),
        (policy("default", "PERMISSIVE"), policy("db", "STRICT", app="db")),
    ],
    ids=["for the mesh", "for a workload"],
)
@pytest.mark.parametrize("knows_the_mark", [True, False])
def test_agents_stay_closed_while_their_server_has_lost_what_was_applied(
    tmp_path: Path, before: tuple[PeerAuthentication, ...], knows_the_mark: bool
) -> None:
    (tmp_path / "server" / "lib").mkdir(parents=True)
    (tmp_path / "server" / "files").mkdir()
    store = server(tmp_path)
    storing.put(store, before)
    known = AgentRole(tmp_path / "known")
    known.hear(told(store, tmp_path))
    assert (known.mode(), known.store.lost) == (Mode.STRICT, ())

    path = tmp_path / "server" / "lib" / "applied.json"
    path.write_bytes(path.read_bytes()[:-10])
    opening = "\n".join(
        (
            "apiVersion: security.istio.io/v1",
            "kind: PeerAuthentication",
            "metadata: {name: file, namespace: shop}",
            "spec: {mtls: {mode: PERMISSIVE}}",
        )
    )
    (tmp_path / "server" / "files" / "a.yaml").write_text(opening)
    lost = server(tmp_path)
    fresh = AgentRole(tmp_path / "fresh")
    for agent in (known, fresh):
        agent.hear(told(lost, tmp_path))
        assert agent.mode(knows_the_mark=knows_the_mark) is Mode.STRICT
        assert agent.store.lost == (f"{path}.damaged-1 of boss",)

    storing.put(lost, (policy("default", "PERMISSIVE", ROOT),))
    for agent in (known, fresh):
        agent.hear(told(lost, tmp_path))
        assert (agent.mode(), agent.store.lost) == (Mode.PERMISSIVE, ())


def test_agents_are_told_that_a_policy_is_out_of_force_and_keep_the_one_before(
    tmp_path: Path,
) -> None:
    (tmp_path / "server" / "lib").mkdir(parents=True)
    store = server(tmp_path)
    storing.put(store, (policy("a", "PERMISSIVE"), policy("db", "STRICT", app="db")))
    known, fresh = AgentRole(tmp_path / "known"), AgentRole(tmp_path / "fresh")
    known.hear(told(store, tmp_path))
    before = known.store.objects
    store.withhold(lambda one: "it kills" if one.metadata.name == "db" else "")
    for agent in (known, fresh):
        agent.hear(told(store, tmp_path))
        assert agent.mode() is Mode.STRICT
    assert known.store.objects == before


def test_agents_are_closed_by_a_changed_policy_that_is_out_of_force_on_their_server(
    tmp_path: Path,
) -> None:
    (tmp_path / "server" / "lib").mkdir(parents=True)
    store = server(tmp_path)
    storing.put(store, (policy("a", "PERMISSIVE"),))
    known = AgentRole(tmp_path / "known")
    known.hear(told(store, tmp_path))
    storing.put(store, (policy("a", "STRICT"),))
    store.withhold(lambda _: "it kills")
    known.hear(told(store, tmp_path))
    assert known.mode() is Mode.STRICT


@pytest.mark.parametrize("changed", [False, True])
def test_agents_keep_a_policy_that_their_server_cannot_read_only_if_it_is_the_same(
    tmp_path: Path, *, changed: bool
) -> None:
    (tmp_path / "server" / "lib").mkdir(parents=True)
    opened = to_json(policy("a", "PERMISSIVE"))
    newer: JsonObject = {**opened, "spec": {"mtls": {"mode": "PERMISSIVE"}, "newer": {"x": 1}}}
    known = AgentRole(tmp_path / "known")
    known.hear((opened,))
    written = (
        newer
        if changed
        else {**opened, "metadata": {**mapping_at(opened, "metadata"), "labels": 7}}
    )
    content = {"revision": 1, "objects": [written], "addresses": {}}
    (tmp_path / "server" / "lib" / "applied.json").write_text(json.dumps(content))
    known.hear(told(server(tmp_path), tmp_path))
    assert known.mode() is (Mode.STRICT if changed else Mode.PERMISSIVE)


def test_an_agent_knows_that_its_server_has_lost_configuration_whatever_it_is_told_of_it_next(
    tmp_path: Path,
) -> None:
    agent = AgentRole(tmp_path)
    lost = lost_configuration.told({}, ("applied.json",), ROOT)
    agent.hear(tuple(map(to_json, lost.values())))
    assert agent.store.lost == ("applied.json of boss",)
    agent.hear(tuple({**to_json(one), "spec": {"newer": 1}} for one in lost.values()))
    assert agent.store.lost == ("applied.json of boss",)


@pytest.mark.parametrize(("hosts", "is_lost"), [([7], True), ([7, "a.test"], False)])
def test_an_agent_says_that_an_object_is_lost_that_does_not_say_its_hosts(
    tmp_path: Path, hosts: list[Json], *, is_lost: bool
) -> None:
    agent = AgentRole(tmp_path)
    meta: JsonObject = {"name": "a", "namespace": "shop"}
    told: JsonObject = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": meta,
        "spec": {"hosts": hosts},
    }
    agent.hear((told,))
    assert agent.store.lost == (("VirtualService shop/a",) if is_lost else ())
    assert bool(agent.store.closed) is not is_lost
    agent.hear(())
    assert agent.store.lost == ()
