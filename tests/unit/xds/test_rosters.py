"""What runs elsewhere: as nodes tell it, and for a while after they have gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.errors import InvalidInputError
from meshd.model.workload import Identity, Workload
from meshd.xds import rosters

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


def test_what_is_known_stays_for_a_while_after_the_node_has_hung_up() -> None:
    state = rosters.told(rosters.connected({}, "a", 0), "a", [workload("w")])
    state = rosters.disconnected(state, "a", 100)
    assert rosters.next_expiry(state, GRACE) == 110
    assert uids(rosters.expired(state, 109.9, GRACE)) == ["a/w"]
    assert uids(rosters.expired(state, 110, GRACE)) == []


def test_who_comes_back_in_time_loses_nothing() -> None:
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
    state = rosters.connected({}, "a", 0)
    with pytest.raises(InvalidInputError, match="more than"):
        rosters.told(state, "a", [workload(str(number)) for number in range(5001)])


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
