from __future__ import annotations

import pytest

from meshd.capture.rules.delta import Chain, Tables
from meshd.capture.rules.mark_users import first
from meshd.capture.rules.nftables import Expression, Rule


def table(rule: str, chain: str = "PREROUTING") -> Tables:
    return {"mangle": {chain: Chain("ACCEPT", (rule,))}}


def number(value: int) -> bytes:
    return value.to_bytes(4)


def rule(*expressions: Expression, chain: str = "theirs") -> Rule:
    return Rule("inet", "own", chain, 1, expressions)


@pytest.mark.parametrize(
    "text",
    [
        "-i eth1 -j MARK --set-xmark 0x1/0xffffffff",
        "-m mark --mark 0x1 -j ACCEPT",
        "-p udp -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "-m connmark ! --mark 0x0 -j RETURN",
        "-p tcp -j TPROXY --on-port 8080 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1",
        "-m socket --restore-skmark -j ACCEPT",
    ],
)
def test_rules_of_iptables_that_use_marks_are_named(text: str) -> None:
    assert first([table(text)], ()) == f"table mangle: -A PREROUTING {text}"


@pytest.mark.parametrize("text", ["-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 81", "-j DROP"])
def test_other_rules_are_no_users_of_marks(text: str) -> None:
    assert first([table(text)], ()) == ""


def test_rules_of_meshd_are_no_users_of_marks() -> None:
    assert first([table("-m mark --mark 0x53a/0xfff -j RETURN", "MESHD_OUTPUT")], ()) == ""
    mark = Expression("meta", {2: number(3)})
    assert first((), [rule(mark, chain="MESHD_OUTPUT")]) == ""


@pytest.mark.parametrize(
    "expression",
    [
        Expression("meta", {1: number(1), 2: number(3)}),
        Expression("ct", {2: number(3), 4: number(1)}),
        Expression("socket", {1: number(1)}),
        Expression("tproxy", {}),
    ],
)
def test_rules_of_nf_tables_that_use_marks_are_named(expression: Expression) -> None:
    assert first((), [rule(expression)]) == "a rule in table inet own, chain theirs"


@pytest.mark.parametrize(
    "expression",
    [Expression("meta", {2: number(16)}), Expression("ct", {2: number(0)}), Expression("nat", {})],
)
def test_other_rules_of_nf_tables_are_no_users_of_marks(expression: Expression) -> None:
    assert first((), [rule(expression)]) == ""
