"""What is said of the host's own packet filter when a service is enrolled."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.workloads.host.firewall import remarks, saved


@pytest.mark.parametrize(
    "rule",
    [
        "-p tcp -m tcp --dport 80 -j DROP",
        "-p tcp -m multiport --dports 22,79:81 -j REJECT --reject-with icmp-port-unreachable",
        "-s 198.18.0.0/15 -p tcp -m tcp --dport 80 -j DROP",
    ],
)
def test_a_rule_that_denies_a_declared_port_is_named(rule: str) -> None:
    (told,) = remarks([("INPUT", "ACCEPT", (rule,))], [80])
    assert f"INPUT {rule}" in told
    assert "does not keep callers from port 80" in told
    assert not remarks([("INPUT", "ACCEPT", (rule,))], [8080])
    assert not remarks([("MESHD_INPUT", "-", (rule,))], [80])


@pytest.mark.parametrize("match", ["--uid-owner 990", "--gid-owner 33", "! --uid-owner 0-99"])
def test_a_rule_by_owner_is_named(match: str) -> None:
    rule = f"-p tcp -m owner {match} -j ACCEPT"
    (told,) = remarks([("OUTPUT", "DROP", (rule,))], [])
    assert "sees the connections to the proxy, not where they lead" in told


@pytest.mark.parametrize(
    ("policy", "rules"),
    [
        ("DROP", ()),
        ("ACCEPT", ("-i lo -j ACCEPT", "-j REJECT --reject-with icmp-port-unreachable")),
    ],
)
def test_a_firewall_that_lets_in_what_it_knows_is_told_how_to_know_the_proxys_port(
    policy: str, rules: tuple[str, ...]
) -> None:
    (told,) = remarks([("INPUT", policy, rules)], [8080])
    assert "--ctorigdstport 8080" in told
    assert not remarks([("FORWARD", policy, rules)], [8080])
    assert not remarks([("INPUT", policy, rules)], [])


def test_saved_rules_of_ours_are_named(tmp_path: Path) -> None:
    ours, others = tmp_path / "rules.v4", tmp_path / "rules.v6"
    ours.write_text("*nat\n:MESHD_OUTPUT - [0:0]\nCOMMIT\n")
    others.write_text("*nat\nCOMMIT\n")
    (told,) = saved((ours, others, tmp_path / "missing"))
    assert told.startswith(f"{ours} has rules of meshd")
    assert "grep -v MESHD_" in told
