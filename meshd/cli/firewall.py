"""Makes remarks about the host's own packet filter for people who enroll a service of the host."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules import foreign, nftables
from meshd.capture.rules.apply import read_tables
from meshd.workloads.host import firewall, native_firewall


def remarks(ports: Collection[int]) -> tuple[str, ...]:
    """Return a line for each rule that the mesh affects; ``ports`` are those that the service
    declares."""
    try:
        found = firewall.remarks(tuple(_chains()), ports)
    except SystemRefusedError:
        found = []  # capturing reports what is wrong with iptables
    with contextlib.suppress(SystemRefusedError):  # capturing reports this as well
        found += native_firewall.remarks(tuple(_native_chains()), ports)
    return (*found, *firewall.saved())


def _native_chains() -> Iterator[native_firewall.Chain]:
    """Yield the chains of nf_tables that are not in tables of iptables."""
    chains, rules = nftables.chains(), nftables.rules()
    of_iptables = {(one.family, one.table) for one in chains if foreign.is_of_iptables(one)}
    others = [one for one in rules if (one.family, one.table) not in of_iptables]
    texts: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one, text in zip(others, nftables.texts_of(others), strict=True):
        texts[one.family, one.table, one.chain].append(text)
    for chain in chains:
        if (chain.family, chain.table) not in of_iptables:
            place = (chain.family, chain.table, chain.name)
            yield native_firewall.Chain(
                " ".join(place), tuple(texts[place]), foreign.hook_of(chain), chain.drops
            )


def _chains() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for families in read_tables().values():
        for tables in families.values():
            for chains in tables.values():
                for name, chain in chains.items():
                    yield name, chain.policy, chain.rules
