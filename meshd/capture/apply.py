"""From what is there to what is wanted, inside one namespace. The body of ``inside.run``'s child.

Reads, decides with ``delta``, writes. Idempotent, and safe to be killed at any line: the next run
reads what the last one left and goes on from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshd.capture import fingerprint, routing
from meshd.capture.delta import (
    Change,
    Tables,
    changes_to,
    guarded,
    is_captured,
)
from meshd.capture.fingerprint import Fingerprint
from meshd.capture.options import CaptureOptions
from meshd.capture.rules import Family, Ruleset, desired_rules, guard_rules
from meshd.capture.tables import (
    Backend,
    LegacyTables,
    NftTables,
    is_installed,
)
from meshd.errors import SystemRefusedError

_IPV6: Final = Path("/proc/thread-self/net/if_inet6")
_LOOPBACK_WITHOUT_IPV6: Final = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, or would be, for people and scripts."""

    family: str
    backend: str
    change: str
    rules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    steps: tuple[Step, ...]
    fingerprint: Fingerprint


def apply(options: CaptureOptions) -> Outcome:
    """Make the rules so. Raises SystemRefusedError."""
    return _bring_about(options, act=True)


def plan(options: CaptureOptions) -> Outcome:
    """What ``apply`` would do."""
    return _bring_about(options, act=False)


def remove() -> Outcome:
    """Leave nothing of ours."""
    return _bring_about(None, act=True)


def plan_removal() -> Outcome:
    """What ``remove`` would do."""
    return _bring_about(None, act=False)


def _bring_about(options: CaptureOptions | None, *, act: bool) -> Outcome:
    families = _families()
    there = _read_all(families)
    steps: list[Step] = []
    chosen = _choose(options.backend if options else "auto", there)
    # The chosen tables first: in between the workload is redirected twice rather than not at all.
    for backend in sorted(there, key=lambda backend: backend is not chosen):
        wanted = options if backend is chosen else None
        changes = {
            family: _changes(backend, there[backend][family], wanted, family) for family in families
        }
        if act and any(changes.values()):
            backend.write(changes, there[backend])
        steps += _steps(backend, changes)
    steps += _routing(options, families, act=act)
    if act and options:
        routing.migrate_requests()
    return Outcome(tuple(steps), fingerprint.take())


def _families() -> tuple[Family, ...]:
    return (Family.IPV4, Family.IPV6) if _IPV6.exists() else (Family.IPV4,)


def _read_all(families: tuple[Family, ...]) -> dict[Backend, Mapping[Family, Tables]]:
    backends: list[Backend] = []
    if is_installed("nft"):
        backends.append(NftTables())
    if is_installed("legacy"):
        backends.append(LegacyTables())
    if not backends:
        raise SystemRefusedError("no iptables is installed; install Debian's package iptables")
    return {backend: backend.read(families) for backend in backends}


def _choose(wish: str, there: Mapping[Backend, Mapping[Family, Tables]]) -> Backend:
    """Where we are already; else legacy where legacy has rules; else nft; else legacy."""
    by_name = {backend.name: backend for backend in there}
    if wish != "auto":
        if wish in by_name:
            return by_name[wish]
        raise SystemRefusedError(
            f"setting capture.backend: iptables-{wish} is not installed; use auto"
        )
    for backend, tables in there.items():
        if any(map(is_captured, tables.values())):
            return backend
    legacy = by_name.get("legacy")
    if legacy and any(map(_has_rules, there[legacy].values())):
        return legacy
    return by_name.get("nft") or by_name["legacy"]


def _has_rules(tables: Tables) -> bool:
    return any(chain.rules for chains in tables.values() for chain in chains.values())


def _changes(
    backend: Backend, tables: Tables, options: CaptureOptions | None, family: Family
) -> tuple[Change, ...]:
    desired: Ruleset = desired_rules(options, family) if options else {}
    changes = changes_to(tables, desired, mark_new_tables=backend.remembers_new_tables)
    # Before the first time traffic passes anyway, and when capture ends it shall pass.
    if options and desired and not options.fail_open and is_captured(tables):
        return guarded(changes, tables, guard_rules(options))
    return changes


def _steps(backend: Backend, changes: Mapping[Family, tuple[Change, ...]]) -> list[Step]:
    return [
        Step(family.label, backend.name, str(change), tuple(map(str, change.rules)))
        for family, of_family in changes.items()
        for change in of_family
    ]


def _is_routed(family: Family, options: CaptureOptions) -> bool:
    if family is Family.IPV4:
        return True
    # Where IPv6 is switched off on the loopback interface, no route can lead there.
    return options.ipv6 and _LOOPBACK_WITHOUT_IPV6.read_text(encoding="ascii").strip() == "0"


def _routing(
    options: CaptureOptions | None, families: tuple[Family, ...], *, act: bool
) -> list[Step]:
    steps: list[Step] = []
    for family in families:
        wanted = options is not None and _is_routed(family, options)
        lines = routing.missing(family) if wanted else routing.present_in(family)
        if act and lines:
            (routing.add if wanted else routing.remove)(family, lines)
        verb = "add" if wanted else "drop"
        steps += [Step(family.label, "routing", f"{verb} {line}") for line in lines]
    return steps
