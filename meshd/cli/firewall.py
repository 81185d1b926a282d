"""Remarks about the host's own packet filter for whoever enrolls a service of the host."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from meshd.capture.apply import read_tables
from meshd.discovery import firewall
from meshd.errors import SystemRefusedError


def remarks(ports: Collection[int]) -> tuple[str, ...]:
    """Return a line for each rule that the mesh affects; ``ports`` are those that the service
    declares."""
    try:
        found = firewall.remarks(tuple(_chains()), ports)
    except SystemRefusedError:
        found = []  # whatever is wrong with iptables, capturing says
    return (*found, *firewall.saved())


def _chains() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for families in read_tables().values():
        for tables in families.values():
            for chains in tables.values():
                for name, chain in chains.items():
                    yield name, chain.policy, chain.rules
