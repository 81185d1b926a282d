"""What runs elsewhere: as nodes tell it, and for a while after they have gone."""

from __future__ import annotations

import contextlib
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api import checked
from meshd.base.attempts import Attempts
from meshd.base.errors import InvalidInputError
from meshd.fleet.server import reports, rosters
from meshd.model.workload import Identity, Workload

GRACE = 10.0


def workload(uid: str, node: str = "", account: str = "x") -> Workload:
    return Workload(
        uid=uid, name=uid, namespace="n", netns="/ns", service_account=account, node=node
    )


def uids(of: rosters.Rosters) -> list[str]:
    return [f"{one.node}/{one.uid}" for one in rosters.workloads_of(of)]


def test_a_node_says_what_runs_on_it_and_not_where() -> None:
    state = rosters.told(rosters.connected({}, "a", 0), "a", [workload("w", node="b")])
    (one,) = rosters.workloads_of(state)
    assert (one.node, one.netns) == ("a", "")


def test_each_telling_is_the_whole() -> None:
    state = rosters.connected({}, "a", 0)
    state = rosters.told(state, "a", [workload("v"), workload("w")])
    state = rosters.told(state, "a", [workload("w")])
    assert uids(state) == ["a/w"]


def test_workloads_stay_known_for_a_while_after_their_node_has_hung_up() -> None:
    state = rosters.told(rosters.connected({}, "a", 0), "a", [workload("w")])
    state = rosters.disconnected(state, "a", 100)
    assert rosters.next_expiry(state, GRACE) == 110
    assert uids(rosters.expired(state, 109.9, GRACE)) == ["a/w"]
    assert uids(rosters.expired(state, 110, GRACE)) == []


def test_a_node_that_comes_back_in_time_loses_nothing() -> None:
    state = rosters.told(rosters.connected({}, "a", 0), "a", [workload("w")])
    state = rosters.connected(rosters.disconnected(state, "a", 100), "a", 105)
    assert rosters.next_expiry(state, GRACE) is None
    assert uids(rosters.expired(state, 1000, GRACE)) == ["a/w"]


def test_the_old_connection_may_break_after_the_new_one_began() -> None:
    state = rosters.told(rosters.connected({}, "a", 0), "a", [workload("w")])
    state = rosters.disconnected(rosters.connected(state, "a", 5), "a", 6)
    assert state["a"].connections == 1
    assert uids(rosters.expired(state, 1000, GRACE)) == ["a/w"]


def test_what_was_known_before_a_restart_waits_for_its_node() -> None:
    state = rosters.restored([workload("w", "a"), workload("v", "b")], 50)
    assert uids(state) == ["a/w", "b/v"]
    state = rosters.told(rosters.connected(state, "a", 51), "a", [workload("w")])
    assert uids(rosters.expired(state, 60, GRACE)) == ["a/w"]


def test_the_server_has_no_account_of_itself_that_could_grow_old() -> None:
    state = rosters.restored([workload("w", "a"), workload("v", "server")], 50, "server")
    assert uids(state) == ["a/w"]


def test_only_what_a_node_runs_may_be_signed_for_it() -> None:
    state = rosters.told(rosters.connected({}, "a", 0), "a", [workload("w", account="w")])
    assert rosters.identities_of(state, "a", "td") == {Identity("td", "n", "w")}
    assert rosters.identities_of(state, "b", "td") == frozenset()


def test_what_a_node_may_not_have_is_left_out_and_the_rest_is_not() -> None:
    state = rosters.connected({}, "a", 0, ("m", "n/x"))
    state = rosters.told(state, "a", [workload("v", account="y"), workload("w")])
    assert uids(state) == ["a/w"]
    assert list(state["a"].refused) == ["v"]
    assert "bound to m, n/x, and this is n/y" in state["a"].refused["v"]
    assert rosters.identities_of(state, "a", "td") == {Identity("td", "n", "x")}
    state = rosters.told(state, "a", [workload("w")])
    assert not state["a"].refused


def test_a_node_comes_back_within_its_new_bounds() -> None:
    state = rosters.told(rosters.connected({}, "a", 0), "a", [workload("w")])
    state = rosters.connected(rosters.disconnected(state, "a", 1), "a", 2, ("m",))
    assert uids(state) == []


def test_a_node_that_is_removed_leaves_nothing() -> None:
    state = rosters.told(rosters.connected({}, "a", 0), "a", [workload("w")])
    state = rosters.told(rosters.connected(state, "b", 0), "b", [workload("v")])
    assert uids(rosters.removed(state, "a")) == ["b/v"]


def test_a_node_cannot_flood_the_rest() -> None:
    with pytest.raises(InvalidInputError, match="more than"):
        rosters.decode(report(*(_TILL | {"uid": f"bank.{number}"} for number in range(5001))))


@pytest.mark.parametrize("element", [b"1", b"{}", b'"a"', b"[]"])
def test_more_values_than_any_node_has_are_refused_before_they_are_decoded(element: bytes) -> None:
    message = b"[" + b",".join([element] * 2_000_000) + b"]"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match="more values"):
            rosters.decode(message)
        assert tracemalloc.get_traced_memory()[1] < len(message)
    finally:
        tracemalloc.stop()


def test_as_many_workloads_as_a_node_may_have_are_taken_with_many_labels() -> None:
    labels = {f"label-{number}": "value" for number in range(60)}
    every = [_TILL | {"uid": f"bank.{number}", "labels": labels} for number in range(1000)]
    found = rosters.decode(report(*every))
    assert (len(found.workloads), found.unusable) == (1000, {})


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=20))
def test_nobody_who_is_connected_is_ever_forgotten(events: list[tuple[str, bool]]) -> None:
    state: rosters.Rosters = {}
    for now, (node, comes) in enumerate(events):
        if comes:
            state = rosters.told(rosters.connected(state, node, now), node, [workload("w")])
        elif node in state and state[node].connections:
            state = rosters.disconnected(state, node, now)
        connected = {name for name, roster in state.items() if roster.connections}
        assert connected <= rosters.expired(state, now + 1e9, 0).keys()
        assert all(roster.connections >= 0 for roster in state.values())


def report(*workloads: object) -> bytes:
    return msgspec.json.encode(workloads)


_TILL = {"uid": "bank.till", "name": "till", "namespace": "bank", "netns": ""}


def test_an_invalid_workload_costs_itself_and_no_other() -> None:
    bad = _TILL | {"uid": "bank.bad", "addresses": ["not-an-ip"]}
    worse = _TILL | {"uid": "bank.worse", "ports": [{"name": "web", "number": 99999999999}]}
    told = rosters.decode(report(bad, _TILL, worse, 7))
    assert [one.uid for one in told.workloads] == ["bank.till"]
    assert set(told.unusable) == {"bank.bad", "bank.worse", "#3"}
    assert "'not-an-ip' is not an IP address" in told.unusable["bank.bad"]
    state = rosters.connected({}, "a", 0)
    state = rosters.told(state, "a", told.workloads, told.unusable)
    assert uids(state) == ["a/bank.till"]
    assert set(state["a"].refused) == set(told.unusable)


def test_a_uid_is_shown_without_what_a_terminal_obeys() -> None:
    told = rosters.decode(report(_TILL | {"uid": "mesh.\x1b]0;x\x07\nerror: FAKE"}))
    (uid,) = told.unusable
    assert uid.isprintable()


def test_two_workloads_of_one_uid_are_one_workload_and_a_problem() -> None:
    told = rosters.decode(report(_TILL, _TILL | {"namespace": "other"}))
    assert [one.namespace for one in told.workloads] == ["bank"]
    assert told.unusable == {"bank.till": "its uid is used twice"}


def test_a_workload_of_megabytes_is_not_taken() -> None:
    big = _TILL | {"annotations": {f"a{number}": "x" * 1000 for number in range(100)}}
    assert rosters.decode(report(big)).workloads == ()


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_a_node_sends_is_a_report_or_refused(message: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        rosters.decode(message)


def test_of_a_report_that_kills_only_the_workload_at_fault_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each death is a new process that finds what the one before has noted."""

    class Death(BaseException):
        pass

    decode = checked.decode

    def deadly(raw: msgspec.Raw, kind: type[Workload]) -> Workload:
        if b"killer" in bytes(raw):
            raise Death
        return decode(raw, kind)

    monkeypatch.setattr(checked, "decode", deadly)
    monkeypatch.setattr(Attempts, "done", _unless_dying(Attempts.done, Death))
    sent = report(_TILL, _TILL | {"uid": "bank.killer"}, _TILL | {"uid": "bank.last"})
    deaths = 0
    while True:
        attempts = Attempts(tmp_path / "attempts.json")
        try:
            told = reports.read(attempts, "a", sent)
        except Death:
            deaths += 1
            assert deaths < 6
        else:
            break
    assert [one.uid for one in told.workloads] == ["bank.till", "bank.last"]
    assert "is left out" in told.unusable["bank.killer"]
    assert "what node a reports, workload " in attempts.problems[0]
    assert reports.read(attempts, "a", report(_TILL)).unusable == {}
    assert [one.uid for one in reports.read(attempts, "b", report(_TILL)).workloads] == [
        "bank.till"
    ]


def _unless_dying(done: Any, death: type[BaseException]) -> Any:
    """A process that has died strikes nothing off."""

    def only_alive(attempts: Attempts, *names: object) -> None:
        if not isinstance(sys.exc_info()[1], death):
            done(attempts, *names)

    return only_alive
