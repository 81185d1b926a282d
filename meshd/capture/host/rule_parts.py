"""Parts of the rules for services of the host. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from meshd.capture.host.host_service import HostWorkload
from meshd.capture.rules.never_captured import METADATA_ADDRESSES, NEVER_OUTBOUND_PORTS
from meshd.capture.rules.rule import Extension, Family, Option, Rule
from meshd.capture.rules.rules import RETURN

_PORTS_IN_ONE_MATCH: Final = 15  # iptables-extensions(8), multiport


def never(family: Family) -> Iterator[Rule]:
    yield Rule(destination=METADATA_ADDRESSES[family], target=RETURN)
    yield Rule(protocol="tcp", matches=(dports(NEVER_OUTBOUND_PORTS),), target=RETURN)


def served_ports(workloads: Iterable[HostWorkload]) -> Iterator[tuple[HostWorkload, int]]:
    return ((one, port) for one in workloads for port in one.ports)


def with_cgroup(workloads: Iterable[HostWorkload]) -> list[HostWorkload]:
    return [one for one in workloads if one.cgroup_id]


def ports_in_parts(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (
        numbers[start : start + _PORTS_IN_ONE_MATCH]
        for start in range(0, len(numbers), _PORTS_IN_ONE_MATCH)
    )


def sent_by(one: HostWorkload) -> tuple[Extension, Extension]:
    return Extension("cgroup", (Option("path", (one.cgroup,)),)), about(one)


def about(one: HostWorkload) -> Extension:
    """Return a comment for people who read the rules; with it, a rule changes with its cgroup."""
    return Extension("comment", (Option("comment", (f"{one.uid}@{one.cgroup_id}",)),))


def dports(numbers: Sequence[int]) -> Extension:
    return Extension("multiport", (Option("dports", (",".join(map(str, numbers)),)),))


HERE: Final = Extension("addrtype", (Option("dst-type", ("LOCAL",)),))
