"""Which rules of nf_tables, as nft writes them, count as ones that may lead around the mesh."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from meshd.capture.rules import foreign, nftables
from meshd.cli import firewall

_ROUND = [
    ("inet", "filter", "prerouting", -301, "tcp dport 8080 notrack"),
    ("ip6", "filter", "output", -300, "notrack"),
    ("inet", "filter", "prerouting", -301, "udp dport 53 notrack"),
    ("inet", "filter", "output", -101, "meta mark set 0x00000539"),
    ("ip", "filter", "output", -101, "meta mark set meta mark | 0x00000001"),
    ("ip6", "route", "output", -150, "meta mark set ct mark"),
    ("inet", "filter", "output", -101, "ct mark set 0x00000111"),
    ("ip", "nat", "output", -100, "ip protocol tcp dnat to 198.18.0.1"),
    ("ip", "nat", "prerouting", -110, "tcp dport 8080 redirect to :99"),
    ("ip", "filter", "prerouting", 0, "tcp dport 8080 tproxy to :99"),
    ("inet", "filter", "prerouting", -10, "tcp dport 15006 tcp dport set 99"),
    ("inet", "filter", "input", 10, "tcp dport 15006 tcp dport set 8080"),
    ("netdev", "filter", "ingress device lo", 0, "tcp dport 8080 tcp dport set 99"),
]
_HARMLESS = [
    ("inet", "filter", "prerouting", -299, "tcp dport 8080 notrack"),
    ("inet", "filter", "prerouting", -301, "udp dport 4789 notrack"),
    ("inet", "filter", "output", -101, "meta mark set meta mark | 0x00010000"),
    ("inet", "filter", "output", -101, "meta mark set meta mark & 0xffff0fff"),
    ("inet", "filter", "output", -101, "tcp dport 8080 accept"),
    ("inet", "filter", "output", -101, "tcp dport 8080 drop"),
    ("inet", "filter", "output", -101, "icmp type echo-request meta mark set 0x00000001"),
    ("inet", "filter", "input", -150, "meta mark set 0x00000539"),
    ("inet", "filter", "forward", -301, "meta mark set 0x00000539"),
    ("ip", "nat", "output", -99, "ip protocol tcp dnat to 198.18.0.1"),
]
Case = tuple[str, str, str, int, str]


def counted(network: Any, case: Case, way: str) -> list[str]:
    family, kind, hook, priority, rule = case
    text = f"""
table {family} theirs {{
    chain inner {{
        {rule}
    }}
    chain base {{
        type {kind} hook {hook} priority {priority};
        {way}
    }}
}}
"""

    def look() -> list[str]:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
        subprocess.run(["iptables-nft", "-t", "nat", "-A", "OUTPUT", "-j", "ACCEPT"], check=True)
        found = tuple(foreign.chains_before(nftables.chains(), nftables.rules()))
        texts = nftables.texts_of([rule for _, rule in found])
        chains = (chain for chain, _ in found)
        return [foreign.described(*one) for one in zip(chains, texts, strict=True)]

    return network.inside(look)


@pytest.mark.parametrize("case", _ROUND, ids=lambda case: case[-1])
def test_chains_that_may_lead_around_the_mesh_are_named_with_their_rule(
    network: Any, case: Case
) -> None:
    family, _, hook, priority, rule = case
    where = f"{hook.split()[0]}, priority {priority}"
    assert counted(network, case, "jump inner") == [
        f"table {family} theirs, chain base ({where}): {rule}"
    ]


def test_rules_behind_a_map_of_verdicts_are_found(network: Any) -> None:
    case = _ROUND[0]
    assert len(counted(network, case, "meta l4proto vmap { tcp : goto inner }")) == 1


@pytest.mark.parametrize("case", _HARMLESS, ids=lambda case: case[-1])
def test_rules_that_lead_nowhere_else_are_not_named(network: Any, case: Case) -> None:
    assert counted(network, case, "jump inner") == []


def test_a_chain_that_no_packet_reaches_does_not_count(network: Any) -> None:
    assert counted(network, _ROUND[0], "accept") == []


_FIREWALL = """
table inet firewalld {
    chain filter_INPUT {
        type filter hook input priority filter + 10; policy accept;
        ct state { established, related } accept
        jump filter_IN_public
        reject with icmpx admin-prohibited
    }
    chain filter_IN_public {
        tcp dport 22 accept
        ip saddr 198.18.7.0/24 tcp dport { 8000-8080, 9090 } reject
    }
    chain filter_OUTPUT {
        type filter hook output priority filter + 10; policy accept;
        meta skuid 33 accept
    }
}
"""


def test_enrolling_a_service_tells_of_native_nf_tables_rules(network: Any) -> None:
    def look() -> tuple[str, ...]:
        subprocess.run(["nft", "-f", "-"], input=_FIREWALL, text=True, check=True)
        own = ["-A", "INPUT", "-p", "tcp", "--dport", "8080", "-j", "DROP"]
        subprocess.run(["iptables-nft", *own], check=True)
        return firewall.remarks((8080,))

    told = "\n".join(network.inside(look))
    assert told.count("does not keep callers from port 8080") == 2, "once of each firewall"
    assert "inet firewalld filter_IN_public: ip saddr 198.18.7.0/24 tcp dport" in told
    assert "chain inet firewalld filter_INPUT lets in what it knows only" in told
    assert "inet firewalld filter_OUTPUT: meta skuid 33 accept" in told
