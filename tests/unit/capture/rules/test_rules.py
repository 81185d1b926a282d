from __future__ import annotations

import re

import pytest

from meshd.capture.rules.options import CaptureOptions, parse_network
from meshd.capture.rules.rule import Family
from meshd.capture.rules.rules import desired_rules, guard_rules
from meshd.model import interception

RULES = {
    "raw": {
        "MESHD_PREROUTING": """
            ! -i lo -p tcp -m tcp --dport 15001 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
            ! -i lo -p tcp -m tcp --dport 15006 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
            ! -i lo -p tcp -m tcp --dport 15053 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
            ! -i lo -p udp -m udp --dport 15053 -j DROP
            -p udp -m udp --sport 53 -m mark ! --mark 0x538/0xffc -j CT --zone 1
            -p tcp -j CT""",
        "MESHD_OUTPUT": """
            -o lo -p tcp -m tcp --dport 15001 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
            -o lo -p tcp -m tcp --dport 15006 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
            -o lo -p tcp -m mark --mark 0x53a/0xfff -j CT --zone-orig 2
            -p udp -m udp --dport 53 -m mark --mark 0x538/0xffc -j CT --zone 1
            -p udp -m udp --dport 53 -j CT
            -p tcp -j CT""",
    },
    "mangle": {
        "MESHD_PREROUTING": """
            -i lo -p tcp -m mark --mark 0x53a/0xfff -j CONNMARK --set-xmark 0x111/0xfff""",
        "MESHD_OUTPUT": """
            ! -o lo -p tcp -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark
              --nfmask 0xfff --ctmask 0xfff""",
    },
    "nat": {
        "MESHD_PREROUTING": """
            -i lo -p tcp -m mark --mark 0x538/0xffc -j RETURN
            -p tcp -j REDIRECT --to-ports 15006""",
        "MESHD_OUTPUT": """
            -o lo -p tcp -m mark --mark 0x539/0xfff -j REDIRECT --to-ports 15006
            -m mark --mark 0x538/0xffc -j RETURN
            -d 127.0.0.53/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053
            ! -o lo -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053
            -d 127.0.0.53/32 -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 15001
            ! -o lo -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 15001
            -o lo -j RETURN
            -p tcp -j REDIRECT --to-ports 15001""",
    },
}


def lines(options: CaptureOptions, family: Family, table: str, chain: str) -> list[str]:
    return [str(rule) for rule in desired_rules(options, family)[table][chain]]


@pytest.mark.parametrize(
    ("table", "chain"), [(t, c) for t, chains in RULES.items() for c in chains]
)
def test_the_rules_of_a_workload_without_wishes(table: str, chain: str) -> None:
    text = re.sub(r"\n +(?=--)", " ", RULES[table][chain])
    expected = [line.strip() for line in text.strip().splitlines()]
    assert lines(CaptureOptions(), Family.IPV4, table, chain) == expected


def test_one_mask_covers_the_proxys_marks_and_nothing_else() -> None:
    marks = {mark for mark in range(0x1000) if mark & 0xFFC == 0x538}
    assert {interception.PROXY_MARK, interception.PROXY_INBOUND_MARK} < marks
    assert interception.INBOUND_CONNMARK not in marks


def test_each_family_gets_its_own_addresses_only() -> None:
    options = CaptureOptions(
        exclude_outbound=(parse_network("10.0.0.0/8"), parse_network("fd00::/8"))
    )
    v4 = "\n".join(lines(options, Family.IPV4, "nat", "MESHD_OUTPUT"))
    v6 = "\n".join(lines(options, Family.IPV6, "nat", "MESHD_OUTPUT"))
    assert "-d 10.0.0.0/8 -j RETURN" in v4
    assert "-d fd00::/8 -j RETURN" in v6
    assert ":" not in v4
    assert "10.0.0.0" not in v6
    assert "127.0.0" not in v6


def test_excludes_come_before_includes_and_dns_before_both() -> None:
    options = CaptureOptions(
        include_outbound=(parse_network("10.0.0.0/8"),),
        exclude_outbound=(parse_network("10.1.0.0/16"),),
        include_outbound_ports=(443,),
        exclude_outbound_ports=(22,),
        exclude_interfaces=("eth1",),
    )
    shown = lines(options, Family.IPV4, "nat", "MESHD_OUTPUT")
    assert shown[shown.index("-m mark --mark 0x538/0xffc -j RETURN") + 1 :] == [
        "-o eth1 -j RETURN",
        "-d 127.0.0.53/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
        "! -o lo -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
        "-d 127.0.0.53/32 -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 15001",
        "! -o lo -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 15001",
        "-o lo -j RETURN",
        "-d 10.1.0.0/16 -j RETURN",
        "-p tcp -m tcp --dport 22 -j RETURN",
        "-p tcp -m tcp --dport 443 -j REDIRECT --to-ports 15001",
        "-d 10.0.0.0/8 -p tcp -j REDIRECT --to-ports 15001",
    ]


def test_a_range_that_is_everything_is_written_as_the_kernel_shows_it() -> None:
    options = CaptureOptions(include_outbound=(parse_network("0.0.0.0/0"),))
    assert lines(options, Family.IPV4, "nat", "MESHD_OUTPUT")[-1] == (
        "-p tcp -j REDIRECT --to-ports 15001"
    )


def test_without_dns_capture_no_rule_speaks_of_port_53() -> None:
    for family in Family:
        desired = desired_rules(CaptureOptions(dns=False), family)
        rules = [str(rule) for t in desired.values() for c in t.values() for rule in c]
        assert not any("53" in re.findall(r"port (\d+)", rule) for rule in rules)
    assert not any("udp" in str(rule) for rule in guard_rules(CaptureOptions(dns=False)))


def test_ipv6_that_is_not_captured_goes_to_a_port_where_nobody_listens() -> None:
    captured = desired_rules(CaptureOptions(), Family.IPV6)["nat"]
    refused = desired_rules(CaptureOptions(ipv6=False), Family.IPV6)["nat"]
    assert {chain: len(rules) for chain, rules in captured.items()} == {
        chain: len(rules) for chain, rules in refused.items()
    }
    targets = [str(rule) for rules in refused.values() for rule in rules if "REDIR" in str(rule)]
    assert targets
    assert all(line.endswith("--to-ports 15054") for line in targets)
    assert "15054" not in str(desired_rules(CaptureOptions(ipv6=False), Family.IPV4)["nat"])


def test_queries_above_a_workloads_share_are_refused_or_dropped() -> None:
    shown = lines(CaptureOptions(dns_rate=500), Family.IPV6, "nat", "MESHD_OUTPUT")
    assert [line for line in shown if "-p udp" in line] == [
        "! -o lo -p udp -m udp --dport 53 -m limit --limit 500/sec --limit-burst 1000"
        " -j REDIRECT --to-ports 15053",
        "! -o lo -p udp -m udp --dport 53 -j REDIRECT --to-ports 15054",
    ]
    further = lines(CaptureOptions(dns_rate=500), Family.IPV6, "mangle", "MESHD_OUTPUT")
    assert further[-1].endswith("-m conntrack --ctstate ESTABLISHED -j DROP")


@pytest.mark.parametrize(
    ("family", "probed"),
    [(Family.IPV4, "169.254.7.126"), (Family.IPV6, "fd16:9254:7127:1337:ffff:ffff:ffff:fffe")],
)
def test_new_connections_above_a_workloads_share_wait_and_probes_do_not(
    family: Family, probed: str
) -> None:
    opened, sent = (
        f"-p tcp -m tcp --dport {port} --tcp-flags FIN,SYN,RST,ACK SYN" for port in (15001, 15006)
    )
    own = "-p tcp -m tcp --sport 61000:61999 --dport 15006 --tcp-flags FIN,SYN,RST,ACK SYN"
    assert lines(CaptureOptions(connection_rate=100), family, "mangle", "MESHD_INPUT") == [
        f"{opened} -m conntrack --ctorigdst {probed} -m limit --limit 50/sec --limit-burst 100"
        " -j RETURN",
        f"{opened} -m limit --limit 100/sec --limit-burst 200 -j RETURN",
        f"{opened} -j NFLOG --nflog-group 15001",
        f"{opened} -j DROP",
        f"{own} -m limit --limit 50/sec --limit-burst 100 -j RETURN",
        f"{sent} -m limit --limit 200/sec --limit-burst 400 -j RETURN",
        f"{sent} -j NFLOG --nflog-group 15006",
        f"{sent} -j DROP",
    ]


def test_nothing_is_logged_where_the_kernel_cannot_count_it() -> None:
    options = CaptureOptions(connection_rate=100, drops_logged=False)
    rules = lines(options, Family.IPV4, "mangle", "MESHD_INPUT")
    assert [line for line in rules if "NFLOG" in line] == []
    assert [line.endswith("-j DROP") for line in rules].count(True) == 2


def test_without_a_limit_no_connection_waits() -> None:
    assert "MESHD_INPUT" not in desired_rules(CaptureOptions(), Family.IPV4)["mangle"]
