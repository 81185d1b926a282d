"""What a server cannot tell its agents opens none of them, and is not taken for deleted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshd import wire
from meshd.api.base import Key
from meshd.base.attempts import Attempts
from meshd.base.json_values import JsonObject, mapping_at
from meshd.compile.policy.peer_authentication import Mode
from meshd.config import withheld
from meshd.config.policy_digest import DIGEST, NOT_IN_FORCE
from meshd.fleet.server import mcp, packing, stand_ins
from meshd.fleet.server.packing import Packed, Packing
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.workload import Workload
from meshd.xds.resources import Resource, Resources
from tests.unit.node.agent_role import ROOT, AgentRole

_NETWORKING = "networking.istio.io/v1"


def value(api_version: str, kind: str, spec: JsonObject | None = None) -> JsonObject:
    meta: JsonObject = {"name": "a", "namespace": "shop"}
    found: JsonObject = {"apiVersion": api_version, "kind": kind, "metadata": meta}
    return found if spec is None else {**found, "spec": spec}


_PORTS: JsonObject = {"ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}
POLICY = value("security.istio.io/v1", "PeerAuthentication", {"mtls": {"mode": "STRICT"}})
OPEN: JsonObject = {**POLICY, "spec": {"mtls": {"mode": "PERMISSIVE"}}}
WITH_PLACES = [
    value(_NETWORKING, "DestinationRule", {"host": "b.shop.svc.cluster.local"}),
    value(
        _NETWORKING,
        "VirtualService",
        {"hosts": ["a.test"], "http": [{"route": [{"destination": {"host": "egress"}}]}]},
    ),
    value(_NETWORKING, "ServiceEntry", {"hosts": ["a.test"], "resolution": "DNS", **_PORTS}),
    value("v1", "Service", {"ports": [{"port": 80, "name": "http"}]}),
    value(_NETWORKING, "WorkloadEntry", {"address": "198.18.0.1"}),
]
OTHERS = [
    {
        **value("v1", "Namespace"),
        "metadata": {"name": "a", "labels": {"istio-injection": "enabled"}},
    },
    value("v1", "ServiceAccount"),
    value(_NETWORKING, "WorkloadGroup", {"template": {}}),
    value(
        _NETWORKING,
        "Gateway",
        {
            "selector": {"app": "gateway"},
            "servers": [{"port": {"number": 80, "name": "h", "protocol": "HTTP"}, "hosts": ["*"]}],
        },
    ),
]


def kind(found: JsonObject) -> str:
    return str(found["kind"])


class Server:
    """Server roles, one after the other, with one record of what they died of.

    ``tells`` is called with each object that is encoded: it fails, or kills the role.
    """

    def __init__(self, home: Path, tells: Callable[[JsonObject], None]) -> None:
        home.mkdir()
        self._attempts = home / "attempts.json"
        self._tells = tells

    def pack(self, *objects: JsonObject, workloads: tuple[Workload, ...] = ()) -> Packed:
        encode, encode_body = mcp.encode, mcp.encode_body

        def encoded(found: JsonObject) -> Resource:
            self._tells(found)
            return encode(found)

        def body_encoded(url: str, name: str, body: JsonObject) -> Resource:
            self._tells({"kind": "Workload", **body})
            return encode_body(url, name, body)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(packing.mcp, "encode", encoded)
            patched.setattr(packing.mcp, "encode_body", body_encoded)
            for _ in range(50):
                try:
                    role = Packing(Attempts(self._attempts), ROOT)
                    return role.pack(wire.Shared(workloads, objects))
                except _Killed:
                    continue
        raise AssertionError("the role dies of it again and again")


class _Killed(BaseException):
    """Ends the role, as a signal would: nothing of it is carried out any more."""


def kills(of: str, depth: int = 1) -> Callable[[JsonObject], None]:
    """Return what kills a role at objects of a kind, in as many of its forms."""
    forms = ("spec", "closed", "bare")[:depth]

    def tells(found: JsonObject) -> None:
        spec: Any = found.get("spec", {})
        is_closed = NOT_IN_FORCE in spec
        form = "bare" if is_closed and spec.get("hosts") is True else "closed"
        is_of_server = withheld.key_of(found) == Key("PeerAuthentication", ROOT, "meshd-lost")
        if kind(found) == of and not is_of_server and (form if is_closed else "spec") in forms:
            raise _Killed

    return tells


def tells_all(_: JsonObject) -> None:
    """Let all be told."""


def unsayable(found: JsonObject, **metadata: Any) -> JsonObject:
    meta: Any = found["metadata"]
    return {**found, "metadata": {**meta, **metadata}}


Cause: TypeAlias = Callable[[JsonObject], tuple[JsonObject, Callable[[JsonObject], None]]]
CAUSES: dict[str, Cause] = {
    "its creation time is none": lambda one: (unsayable(one, creationTimestamp="never"), tells_all),
    "an annotation is a number": lambda one: (unsayable(one, annotations={"a": 1}), tells_all),
    "an annotation is no text": lambda one: (
        unsayable(one, annotations={"a": "\ud800"}),
        tells_all,
    ),
    "it kills": lambda one: (one, kills(kind(one))),
    "it kills, and so does what stands for it": lambda one: (one, kills(kind(one), 2)),
    "it kills in every form": lambda one: (one, kills(kind(one), 3)),
}


@pytest.fixture(params=CAUSES.values(), ids=list(CAUSES))
def cause(request: pytest.FixtureRequest) -> Cause:
    found: Cause = request.param
    return found


@pytest.mark.parametrize("told", [POLICY, OPEN, *WITH_PLACES, *OTHERS], ids=kind)
def test_agents_keep_what_has_not_changed_and_their_server_cannot_tell_them_any_more(
    tmp_path: Path, cause: Cause, told: JsonObject
) -> None:
    known = AgentRole(tmp_path / "known")
    known.follow(Server(tmp_path / "before", tells_all).pack(told).shared)
    before = dict(known.store.objects)
    assert [key.kind for key in before] == [kind(told)]
    untold, tells = cause(told)
    packed = Server(tmp_path / "after", tells).pack(untold)
    known.follow(packed.shared)
    assert before.items() <= dict(known.store.objects).items()
    assert [kind(told) in problem for problem in packed.problems] == [True]
    known.follow(Server(tmp_path / "last", tells_all).pack().shared)
    assert not known.store.objects
    assert not known.store.lost


def test_an_agent_is_closed_by_a_changed_policy_that_its_server_cannot_tell(
    tmp_path: Path, cause: Cause
) -> None:
    known = AgentRole(tmp_path / "known")
    known.follow(Server(tmp_path / "before", tells_all).pack(OPEN).shared)
    assert known.mode() is Mode.PERMISSIVE
    untold, tells = cause(POLICY)
    published = Server(tmp_path / "after", tells).pack(untold).shared
    known.follow(published)
    assert known.mode() is Mode.STRICT
    again = known.restarted()
    assert again.mode() is Mode.STRICT
    again.follow(published)
    assert again.mode() is Mode.STRICT
    again.follow(Server(tmp_path / "last", tells_all).pack(OPEN).shared)
    assert (again.mode(), again.store.lost) == (Mode.PERMISSIVE, ())


def test_a_changed_policy_for_some_workloads_closes_its_namespace_whatever_others_say(
    tmp_path: Path,
) -> None:
    everywhere: JsonObject = {**OPEN, "metadata": {"name": "default", "namespace": "shop"}}
    selector: JsonObject = {"matchLabels": {"app": "db"}}
    before: JsonObject = {**POLICY, "spec": {"selector": selector, "mtls": {"mode": "DISABLE"}}}
    after: JsonObject = {**POLICY, "spec": {"selector": selector, "mtls": {"mode": "PERMISSIVE"}}}
    known = AgentRole(tmp_path / "known")
    known.follow(Server(tmp_path / "before", tells_all).pack(everywhere, before).shared)
    assert known.mode() is Mode.DISABLE

    def tells(found: JsonObject) -> None:
        if found == after:
            raise _Killed

    known.follow(Server(tmp_path / "after", tells).pack(everywhere, after).shared)
    assert known.mode() is Mode.STRICT
    known.follow(Server(tmp_path / "last", tells_all).pack(everywhere).shared)
    assert known.mode() is Mode.PERMISSIVE


def newer(found: JsonObject) -> JsonObject:
    """Return an object as a later version may have it."""
    return {**found, "spec": {**mapping_at(found, "spec"), "newer": 1}}


histories = st.lists(
    st.tuples(
        st.sampled_from(Mode) | st.none(),
        st.sampled_from((None, newer, *(form for _, form in stand_ins.FORMS))),
        st.booleans(),
    ),
    max_size=8,
)


@given(histories)
@example([(Mode.PERMISSIVE, None, False), (Mode.PERMISSIVE, stand_ins.closed, True)])
@example(
    [
        (Mode.PERMISSIVE, None, False),
        (Mode.STRICT, stand_ins.named, True),
        (Mode.PERMISSIVE, None, False),
    ]
)
def test_an_agent_is_never_more_open_than_its_policy_nor_closed_by_one_that_it_has(
    history: list[tuple[Mode | None, stand_ins.Form | None, bool]],
) -> None:
    """Each step: the policy, if there is any; how it is told; and whether the agent restarts."""
    with tempfile.TemporaryDirectory() as home:
        agent, held = AgentRole(Path(home)), None
        for asked, form, restarts in history:
            whole: JsonObject = {**POLICY, "spec": {"mtls": {"mode": asked}}}
            told = [] if asked is None else [mcp.encode(form(whole) if form else whole)]
            agent.follow(Resources.of(told))
            if asked is None or form is None:
                held = asked
            is_known = asked is None or form is None or (held is asked and form is not newer)
            expected = (asked or Mode.PERMISSIVE) if is_known else Mode.STRICT
            agent = agent.restarted() if restarts else agent
            assert (agent.mode(), agent.store.lost) == (expected, ())


def test_an_agent_of_a_server_that_tells_no_digest_keeps_its_policy(tmp_path: Path) -> None:
    known = AgentRole(tmp_path / "known")
    known.hear((OPEN,))
    without: JsonObject = {"mtls": {"mode": "STRICT"}, NOT_IN_FORCE: True}
    known.hear(({**POLICY, "spec": without},))
    assert known.mode() is Mode.PERMISSIVE
    known.hear(({**POLICY, "spec": {**without, DIGEST: "another"}},))
    assert known.mode() is Mode.STRICT


@pytest.mark.parametrize("mode", ["STRICT", "PERMISSIVE"])
def test_an_agent_is_closed_by_a_changed_policy_that_it_cannot_take_itself(
    tmp_path: Path, mode: str
) -> None:
    known = AgentRole(tmp_path / "known")
    known.hear((OPEN,))
    known.hear(({**POLICY, "spec": {"mtls": {"mode": mode}, "newer": 1}},))
    assert known.mode() is Mode.STRICT
    assert known.restarted().mode() is Mode.STRICT
    known.hear((OPEN,))
    assert known.mode() is Mode.PERMISSIVE


@pytest.mark.parametrize("told", [POLICY, *WITH_PLACES], ids=kind)
def test_an_agent_is_closed_that_was_never_told_of_what_its_server_cannot_tell(
    tmp_path: Path, cause: Cause, told: JsonObject
) -> None:
    untold, tells = cause(told)
    fresh = AgentRole(tmp_path / "fresh")
    fresh.follow(Server(tmp_path / "server", tells).pack(untold).shared)
    if told is POLICY:
        assert fresh.mode() is Mode.STRICT
    assert fresh.store.lost or [one.key.kind for one in fresh.store.standing] == [kind(told)]


def test_an_agent_is_told_of_all_else(tmp_path: Path) -> None:
    fresh = AgentRole(tmp_path / "fresh")
    server = Server(tmp_path / "server", kills("PeerAuthentication"))
    fresh.follow(server.pack(POLICY, *WITH_PLACES).shared)
    assert not fresh.store.lost
    assert {key.kind for key in fresh.store.objects} == {*map(kind, WITH_PLACES), ClosedPolicy.KIND}


def test_agents_keep_a_workload_that_their_server_cannot_tell(tmp_path: Path) -> None:
    there = Workload(uid="shop.db", name="db", namespace="shop", netns="", node="far")
    known = AgentRole(tmp_path / "known")
    known.follow(Server(tmp_path / "before", tells_all).pack(workloads=(there,)).shared)
    assert known.workloads == ["far/shop.db"]
    untold = Server(tmp_path / "after", kills("Workload")).pack(workloads=(there,))
    known.follow(untold.shared)
    assert known.workloads == ["far/shop.db"]
    known.follow(Server(tmp_path / "last", tells_all).pack().shared)
    assert known.workloads == []


def test_agents_are_told_at_once_of_an_object_that_was_corrected(tmp_path: Path) -> None:
    known = AgentRole(tmp_path / "known")
    server = Server(tmp_path / "server", kills("PeerAuthentication"))
    known.follow(server.pack(POLICY).shared)
    assert known.mode() is Mode.STRICT
    corrected: JsonObject = {**POLICY, "spec": {"mtls": {"mode": "PERMISSIVE"}}}

    def tells(found: JsonObject) -> None:
        if found == POLICY:
            raise _Killed

    server = Server(tmp_path / "other", tells)
    assert server.pack(POLICY).problems
    packed = server.pack(corrected)
    assert not packed.problems
    known.follow(packed.shared)
    assert known.mode() is Mode.PERMISSIVE
