"""Whoever policies are about is judged on every connection, also on one that came to a chain, or to
a listener, while the port had another protocol."""

from __future__ import annotations

import pytest

from meshd.compile.envoy.inbound_routes import inbound_routes as printed
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.choices import ByHttp, ByPort, ByRules, ByWorkload, To, Way
from meshd.compile.policy.served import Spoken
from meshd.compile.traffic.entries import ENTRIES, Entry
from meshd.compile.traffic.fixed_chains import DENIED
from meshd.compile.traffic.inbound import shared_listener
from meshd.compile.traffic.inbound_routes import inbound_routes
from meshd.model.snapshot import MeshOptions

SERVED = {
    "http": {80: Spoken.HTTP},
    "either": {80: Spoken.EITHER},
    "sniffed": {80: Spoken.SNIFFED},
    "opaque": {80: Spoken.OPAQUE},
    "elsewhere": {81: Spoken.HTTP},
    "nothing": {},
    "free": {80: Spoken.HTTP, 81: Spoken.HTTP2},
}
GUARDS = {uid: Authorization() for uid in SERVED if uid != "free"}


def test_every_table_judges_or_refuses_all_workloads_that_policies_are_about() -> None:
    tables = list(inbound_routes(SERVED, (), MeshOptions(), GUARDS))
    assert len(tables) == 8  # 80 as HTTP and as either, 81 as HTTP/1.1 and as HTTP/2: two of each
    for table in tables:
        judged = {"elsewhere"} if table.application.port == 81 else {"http", "either", "sniffed"}
        assert table.guards.keys() == judged
        assert set(table.misdirected) == GUARDS.keys() - judged
        (host,) = printed(table).virtual_hosts
        assert set(host.matcher.matcher_tree.exact_match_map.map) == GUARDS.keys()


def test_tables_of_a_node_without_policies_ask_for_no_workload() -> None:
    for table in inbound_routes(SERVED, (), MeshOptions()):
        (host,) = printed(table).virtual_hosts
        assert host.routes
        assert not host.HasField("matcher")


@pytest.mark.parametrize("entry", [one for one in ENTRIES if one.inspected])
def test_a_listener_that_reads_first_bytes_judges_those_who_are_sent_there_no_more(
    entry: Entry,
) -> None:
    """Requests are judged by the routes of their chain."""
    made = shared_listener(entry, entry.listener, SERVED, MeshOptions(), GUARDS)
    assert isinstance(made.choice, ByPort)
    by_workload = made.choice.ways[80]
    assert isinstance(by_workload, ByWorkload)
    judged: dict[str, Way] = {
        uid: ByRules(Authorization(), To("undeclared"), DENIED) for uid in GUARDS
    }
    judged["opaque"] = ByRules(Authorization(), To("80|opaque"), DENIED)
    judged["sniffed"] = ByHttp(
        To("80|either"), ByRules(Authorization(), To("80|opaque"), DENIED), http10=True
    )
    declared = {"http": To("80|http"), "either": To("80|either"), "free": To("80|http")}
    assert by_workload.ways == {**judged, **declared}
