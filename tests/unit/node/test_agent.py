"""What an agent makes of resources that it cannot use: a rule that was to close opens nothing."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from meshd.api.base import Object, ObjectMeta, WorkloadSelector
from meshd.api.destination_rule.types import DestinationRule, DestinationRuleSpec
from meshd.api.kubernetes.types import Service
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.service_entry.types import WorkloadEntry
from meshd.api.write import api_version
from meshd.base.attempts import Attempts
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.config.store import Store
from meshd.config.withheld import unusable_json
from meshd.fleet.agent.inbox import Held, Inbox
from meshd.fleet.joining.facts import MeshFacts
from meshd.fleet.server import mcp
from meshd.model.closed_rule import ClosedRule
from meshd.model.closed_workload import ClosedWorkload
from meshd.node.agent import Told, closed_objects, decode, is_superseded, lost_objects
from meshd.settings import MeshSettings, Settings
from tests.unit.node.agent_role import AgentRole
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path


VERSION = api_version(DestinationRule)
URL = mcp.type_url(VERSION, DestinationRule.KIND)


def rule(**spec: Any) -> bytes:
    value: JsonObject = {
        "apiVersion": VERSION,
        "kind": "DestinationRule",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": spec,
    }
    return mcp.encode(value).body


def told(*bodies: bytes) -> Inbox:
    inbox = Inbox(decode)
    for number, body in enumerate(bodies):
        inbox.take(URL, [("shop/db", Held(str(number), body))])
    return inbox


def closed_rule(**spec: Any) -> ClosedRule:
    meta = ObjectMeta(name="db", namespace="shop")
    return ClosedRule(metadata=meta, spec=DestinationRuleSpec(**spec))


def test_settings_that_differ_from_the_servers_are_a_problem(tmp_path: Path) -> None:
    role = AgentRole(tmp_path)
    assert role.problems == []
    theirs = MeshFacts.of(Settings(mesh=MeshSettings(gateway_selection="own-namespace")))
    role.agent._client.facts = theirs
    (problem,) = role.problems
    assert "mesh.gateway_selection is declared-gateways, not own-namespace" in problem


UNUSABLE = rule(host="db", trafficPolicy={"tls": {"mode": "NONSENSE"}})


def test_a_rule_that_was_never_good_closes_what_it_is_about() -> None:
    assert closed_objects(URL, told(UNUSABLE).never_good(URL)) == (closed_rule(host="db"),)


def test_it_closes_it_for_the_clients_that_it_is_for() -> None:
    for_some = {"exportTo": ["."], "workloadSelector": {"matchLabels": {"app": "web"}}}
    inbox = told(rule(host="db", trafficPolicy=7, **for_some))
    selector = WorkloadSelector(match_labels={"app": "web"})
    expected = closed_rule(host="db", export_to=(".",), workload_selector=selector)
    assert closed_objects(URL, inbox.never_good(URL)) == (expected,)
    for unreadable in ({"exportTo": 7}, {"workloadSelector": {"matchLabels": {"app": 7}}}):
        inbox = told(rule(host="db", **unreadable))
        assert closed_objects(URL, inbox.never_good(URL)) == (closed_rule(host="db"),)


def test_the_last_good_version_stays_and_closes_nothing() -> None:
    inbox = told(rule(host="db"), UNUSABLE)
    assert closed_objects(URL, inbox.never_good(URL)) == ()
    assert list(inbox.values(URL)) == ["shop/db"]


def policy(mode: str, **metadata: Any) -> bytes:
    value: JsonObject = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "a", "namespace": "shop", **metadata},
        "spec": {"mtls": {"mode": mode}},
    }
    return mcp.encode(value).body


def test_a_policy_is_superseded_by_whatever_is_not_known_to_ask_for_the_same() -> None:
    held = policy("PERMISSIVE")
    assert not is_superseded(URL, held, policy("PERMISSIVE", annotations={"a": "b"}))
    for refused in (policy("STRICT"), b"\xff", None):
        assert is_superseded(URL, held, refused)


@pytest.mark.parametrize("kind", [Service, PeerAuthentication], ids=lambda kind: kind.KIND)
def test_an_agent_says_of_what_its_server_cannot_tell_that_the_server_is_to_be_asked(
    kind: type[Object],
) -> None:
    told = mcp.encode(unusable_json(kind(metadata=ObjectMeta(name="a", namespace="shop"))))
    with pytest.raises(InvalidInputError, match="meshctl status on the server says why"):
        decode(told.type_url, told.name, told.body)


def test_what_says_nothing_of_itself_closes_nothing() -> None:
    bodies = (b"", b"\xff", rule(), rule(host=7), rule(host=""))
    assert closed_objects(URL, {str(number): body for number, body in enumerate(bodies)}) == ()


@pytest.mark.parametrize(
    ("spec", "address", "is_lost"),
    [
        ({"address": "198.18.0.9", "newer": 1}, "198.18.0.9", False),
        ({"address": "vm.example.com", "newer": 1}, "", False),
        ({"address": 7}, "", True),
    ],
    ids=["an address", "a host name", "no address"],
)
def test_a_workload_entry_that_was_never_good_closes_its_address(
    spec: JsonObject, address: str, *, is_lost: bool
) -> None:
    version = api_version(WorkloadEntry)
    url = mcp.type_url(version, WorkloadEntry.KIND)
    value: JsonObject = {
        "apiVersion": version,
        "kind": "WorkloadEntry",
        "metadata": {"name": "vm", "namespace": "shop"},
        "spec": spec,
    }
    inbox = Inbox(decode)
    inbox.take(url, [("shop/vm", Held("1", mcp.encode(value).body))])
    never_good = inbox.never_good(url)
    closed = [
        one.spec.address
        for one in closed_objects(url, never_good)
        if isinstance(one, ClosedWorkload)
    ]
    assert closed == ([address] if address else [])
    assert lost_objects(url, never_good) == (("WorkloadEntry shop/vm",) if is_lost else ())


def test_subscribers_of_the_store_are_told_of_closed_objects(tmp_path: Path) -> None:
    store = Store(tmp_path / "config.d", tmp_path / "lib")
    changes: list[int] = []
    store.subscribe(lambda: changes.append(1))
    store.follow({}, (closed_rule(host="db"),))
    assert (store.closed, len(changes)) == ((closed_rule(host="db"),), 1)
    store.follow({})
    assert (store.closed, len(changes)) == ((), 2)


def test_what_a_server_has_in_force_is_taken_whatever_it_counts() -> None:
    subsets = [{"name": f"v{number}", "labels": {"v": str(number)}} for number in range(5000)]
    inbox = told(rule(host="db", subsets=subsets))
    assert (list(inbox.values(URL)), inbox.refused) == (["shop/db"], {})


def test_what_comes_while_something_is_used_is_used_at_once_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = AgentRole(tmp_path).agent
    used: list[list[str]] = []
    told: list[str] = []
    again = asyncio.Event()

    async def use() -> None:
        used.append(told.copy())
        again.set()

    async def scenario() -> None:
        using = asyncio.create_task(agent._use_for_ever())
        for several in (["a", "b"], ["c", "d"]):
            for one in several:
                told.append(one)
                agent._news.set()
            await asyncio.wait_for(again.wait(), PATIENCE)
            again.clear()
        using.cancel()

    monkeypatch.setattr(agent, "_take", use)
    asyncio.run(scenario())
    assert used == [["a", "b"], ["a", "b", "c", "d"]]


def test_the_server_is_told_what_is_used_once_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = AgentRole(tmp_path)
    there: list[bool] = []

    def used(_: object) -> None:
        there.append(bool(role.store.objects))

    monkeypatch.setattr(role.agent._client, "used", used)
    role.agent._inbox.take(URL, [("shop/db", Held("1", rule(host="db")))])
    assert there == []
    asyncio.run(role.agent._take())
    assert there == [True]


def test_what_comes_while_the_server_s_objects_are_put_together_is_no_part_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = AgentRole(tmp_path, Attempts(tmp_path / "attempts.json"))
    inbox, attempts = role.agent._inbox, role.agent._inbox._attempts
    whole, threads, noted = Told.of, list[threading.Thread](), list[set[str]]()

    def put_together(*given: Any) -> Told:
        threads.append(threading.current_thread())
        inbox.take(URL, [("shop/web", Held("1", rule(host="web")))])
        noted.append({name for name, _ in attempts.working})
        return whole(*given)

    monkeypatch.setattr(Told, "of", put_together)
    inbox.take(URL, [("shop/db", Held("1", rule(host="db")))])
    asyncio.run(role.agent._take())
    assert threads[0] is not threading.main_thread()
    assert [key.name for key in role.store.objects] == ["db"]
    assert noted == [set()]  # nothing is in force yet that a process might die of
    assert {name for name, _ in attempts.working} == {"DestinationRule shop/db"}
    asyncio.run(role.agent._take())
    assert {name for name, _ in attempts.working} == {
        "DestinationRule shop/db",
        "DestinationRule shop/web",
    }


def test_of_what_is_in_force_the_loop_of_an_agent_looks_at_no_object_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[threading.Thread] = []
    key = DestinationRule.key.fget
    assert key

    def counted(found: DestinationRule) -> Any:
        looked.append(threading.current_thread())
        return key(found)

    monkeypatch.setattr(DestinationRule, "key", property(counted))
    on_the_loop: list[int] = []
    for number in (10, 1000):
        role = AgentRole(tmp_path / str(number))
        names = [f"shop/r{one}" for one in range(number)]
        bodies = [rule(host="db").replace(b"db", name.encode()[-2:]) for name in names]
        role.agent._inbox.take(URL, [(n, Held("1", b)) for n, b in zip(names, bodies, strict=True)])
        looked.clear()
        asyncio.run(role.agent._take())
        on_the_loop.append(sum(one is threading.main_thread() for one in looked))
        assert len(looked) >= number
    assert on_the_loop[0] == on_the_loop[1]
