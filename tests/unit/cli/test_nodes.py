"""What status says of servers and agents."""

from __future__ import annotations

import msgspec

from meshd import wire
from meshd.cli.nodes import tables, troubles

NOW = 1_000_000.0
CONTROL = wire.ControlStatus(
    server="s:15012", connected=True, since=NOW - 60, ends_first="spiffe://x", ends_at="2026"
)


def statuses(
    control: wire.ControlStatus | None = None, nodes: tuple[wire.NodeStatus, ...] = ()
) -> wire.Statuses:
    return wire.Statuses((), control=control, nodes=nodes)


def lost(since: float) -> wire.ControlStatus:
    return wire.ControlStatus(server="s", connected=False, since=since, problem="why")


def test_alone_there_is_nothing_to_say() -> None:
    assert not list(tables(statuses(), NOW))
    assert not list(troubles(statuses(), NOW))


def test_a_connected_agent_shows_its_server_and_the_first_certificate_to_end() -> None:
    (table,) = tables(statuses(CONTROL), NOW)
    assert table.rows == (("s:15012", "yes", "1m", "spiffe://x", "2026"),)
    assert not list(troubles(statuses(CONTROL), NOW))


def test_an_agent_alone_says_how_old_is_what_it_knows() -> None:
    (line,) = troubles(statuses(lost(NOW - 7200)), NOW)
    assert line == "server s: not connected: its last configuration, 2h old, is in force: why"
    (line,) = troubles(statuses(lost(0)), NOW)
    assert "before this process started" in line


def test_both_ends_name_workloads_that_are_not_taken() -> None:
    kept_out = ("web: bound to bank",)
    control = msgspec.structs.replace(CONTROL, kept_out=kept_out)
    node = wire.NodeStatus(name="a", connected=True, since=NOW, workloads=0, kept_out=kept_out)
    assert list(troubles(statuses(control, (node,)), NOW)) == [
        "server s:15012: rejected workload web: bound to bank",
        "node a: rejected: workload web: bound to bank",
    ]


def test_a_server_names_nodes_that_are_away_and_what_they_refuse() -> None:
    away = wire.NodeStatus(name="a", connected=False, since=NOW - 5, workloads=1)
    picky = wire.NodeStatus(name="b", connected=True, since=NOW, workloads=0, rejected=("X y: no",))
    found = statuses(nodes=(away, picky))
    (table,) = tables(found, NOW)
    assert len(table.rows) == 2
    assert list(troubles(found, NOW)) == [
        "node a: not connected since 5s",
        "node b: refused: X y: no",
    ]
