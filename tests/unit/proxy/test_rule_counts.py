"""What proxies count of rules, by their statistics."""

from __future__ import annotations

from meshd.proxy.rule_counts import counted


def test_counts_of_a_rule_are_summed_over_the_ports_of_a_proxy() -> None:
    rule = "ns[shop]-policy[no.x]-rule[1]"
    statistics = {
        f"http.inbound_8080.rbac.policy.{rule}.denied": 3,
        f"http.inbound_9090.rbac.policy.{rule}.denied": 4,
        f"http.inbound_8080.rbac.policy.{rule}.shadow_denied": 5,
        f"http.inbound_8080.rbac.policy.{rule}.allowed": 6,
        f"tcp.denied.{rule}.downstream_cx_total": 7,
        f"tcp.denied.{rule}.downstream_cx_no_route": 8,
        "tcp.denied.none.downstream_cx_total": 9,
        "http.inbound_8080.rbac.denied": 10,
    }
    assert counted(statistics) == {
        (rule, "denied"): 14,
        (rule, "shadow_denied"): 5,
        (rule, "allowed"): 6,
        ("none", "denied"): 9,
    }
