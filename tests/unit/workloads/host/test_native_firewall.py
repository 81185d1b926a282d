"""What is said of rules of nf_tables itself when a service is enrolled."""

from __future__ import annotations

import pytest

from meshd.workloads.host.native_firewall import Chain, remarks


def told(rule: str, *ports: int, hook: str = "", drops: bool = False) -> list[str]:
    rules = (rule,) if rule else ()
    return remarks([Chain("inet filter input", rules, hook, drops)], ports)


@pytest.mark.parametrize(
    "rule",
    [
        "tcp dport 80 drop",
        "tcp dport 79-81 counter packets 3 bytes 180 reject with tcp reset",
        "ip saddr 198.18.0.0/15 tcp dport { 22, 80 } drop",
        "tcp dport { 22, 70-90 } reject with icmpx admin-prohibited",
        "meta l4proto tcp th dport 80 drop",
        "tcp dport http drop",
        "tcp dport vmap { 22 : accept, 80 : drop }",
    ],
)
def test_a_rule_that_denies_a_declared_port_is_named(rule: str) -> None:
    (line,) = told(rule, 80)
    assert rule in line
    assert "does not keep callers from port 80" in line
    assert not told(rule, 8080)
    assert not told(rule)


@pytest.mark.parametrize(
    "rule",
    [
        "tcp dport 80 accept",
        "tcp sport 80 drop",
        "udp dport 80 drop",
        "tcp dport vmap { 22 : drop, 80 : accept }",
        "tcp dport 99999 drop",
        "tcp dport { 1, 2 ",
    ],
)
def test_rules_that_deny_no_declared_port_are_not_named(rule: str) -> None:
    assert not told(rule, 80)


@pytest.mark.parametrize("rule", ["tcp dport @denied drop", "tcp dport vmap @verdicts"])
def test_a_set_of_ports_is_named_for_what_may_be_in_it(rule: str) -> None:
    (line,) = told(rule, 80)
    assert "if its set has a declared port" in line


@pytest.mark.parametrize(
    "rule", ["meta skuid 990 accept", "skgid != 33 drop", 'socket cgroupv2 level 2 "a/b" drop']
)
def test_a_rule_by_owner_is_named(rule: str) -> None:
    (line,) = told(rule)
    assert "sees the connections to the proxy, not where they lead" in line


@pytest.mark.parametrize(
    ("rule", "drops"),
    [
        ("", True),
        ("reject with icmpx admin-prohibited", False),
        ("counter packets 1 bytes 60 drop", False),
    ],
)
def test_a_firewall_that_lets_in_what_it_knows_is_told_how_to_know_the_proxys_port(
    rule: str, drops: bool
) -> None:
    (line,) = told(rule, 8080, hook="input", drops=drops)
    assert "ct original proto-dst 8080 accept" in line
    assert "firewall-cmd --add-port=15101-15900/tcp" in line
    assert not told(rule, 8080, hook="forward", drops=drops)
    assert not told(rule, hook="input", drops=drops)


def test_a_rule_is_shown_without_what_a_terminal_would_obey() -> None:
    (line,) = told('tcp dport 80 drop comment "\x1b[2J"', 80)
    assert "\x1b" not in line
