"""Brings the rules of one namespace to the wanted state, in the child of ``inside.run``.

It reads, decides with ``delta``, writes. It is idempotent, and safe to be killed at any line: the
next run reads what the last one left and goes on from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from meshd.base.errors import SystemRefusedError
from meshd.capture.host import cgroups
from meshd.capture.host.rules import HostWorkload
from meshd.capture.rules import (
    fingerprint,
    foreign,
    locks,
    mark_users,
    nftables,
    replies,
    routing,
)
from meshd.capture.rules.delta import Change, Tables, changes_to, is_captured
from meshd.capture.rules.fingerprint import Fingerprint
from meshd.capture.rules.options import CaptureOptions
from meshd.capture.rules.rule import Family
from meshd.capture.rules.tables import (
    Backend,
    ByFamily,
    LegacyTables,
    NftTables,
    is_installed,
)
from meshd.capture.rules.targets import HostCapture, HostTarget, Target, WorkloadTarget

_IPV6: Final = Path("/proc/thread-self/net/if_inet6")
_REPLIES: Final = "replies"
"""In place of the tables that a step changes: the step is one of ``replies``."""
_LOOPBACK_WITHOUT_IPV6: Final = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One step that was taken, or would be, for users and scripts."""

    family: str
    backend: str
    change: str
    rules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    steps: tuple[Step, ...]
    fingerprint: Fingerprint
    """As it was left."""
    found: Fingerprint
    """As it was before."""
    foreign: tuple[str, ...] = ()
    """Rules of others that come before ours whatever we do, and may lead around the mesh."""
    unlogged: str = ""
    """Why dropped connections are not logged, though they should be."""
    replies: str = ""
    """Why replies of the application are routed twice; empty: they are not, or nothing is
    captured."""

    @property
    def changes(self) -> list[str]:
        """Return the steps without which traffic would not take its way."""
        return [f"{one.family} {one.change}" for one in self.steps if one.backend != _REPLIES]


def apply(options: CaptureOptions) -> Outcome:
    """Make the rules so. Raises SystemRefusedError."""
    return _with_log_or_without(
        lambda: _bring_about(WorkloadTarget(options), act=True),
        lambda: _bring_about(WorkloadTarget(_unlogged(options)), act=True),
        logs=_is_logging(options),
    )


def _with_log_or_without(
    logging: Callable[[], Outcome], silent: Callable[[], Outcome], *, logs: bool
) -> Outcome:
    """Rather drop uncounted what is above a limit than have no rules: the kernel may lack NFLOG.

    A refusal has many causes, such as a lock that another program holds. The target is missing only
    if rules without it are written, and rules with it are refused again right after that.
    """
    try:
        return logging()
    except SystemRefusedError:
        if not logs:
            raise
    written = silent()
    try:
        again = logging()
    except SystemRefusedError as error:
        # Rules are written table by table: the refused ones may have been begun.
        return dataclasses.replace(silent(), unlogged=str(error), found=written.found)
    return dataclasses.replace(again, found=written.found)


def _is_logging(options: CaptureOptions) -> bool:
    """Return whether rules with these options have the target NFLOG."""
    return options.drops_logged and bool(options.connection_rate)


def _unlogged(options: CaptureOptions) -> CaptureOptions:
    return dataclasses.replace(options, drops_logged=False)


def plan(options: CaptureOptions) -> Outcome:
    """Return what ``apply`` would do."""
    return _bring_about(WorkloadTarget(options), act=False)


def remove() -> Outcome:
    """Leave nothing of ours."""
    return _bring_about(WorkloadTarget(None), act=True)


def apply_host(capture: HostCapture) -> Outcome:
    """Make the host's rules so, or leave none. Raises SystemRefusedError."""
    with locks.locked(locks.RULES):
        workloads, waiting = as_they_are(capture.workloads), as_they_are(capture.waiting)
        now = dataclasses.replace(capture, workloads=workloads, waiting=waiting)
        silent = dataclasses.replace(
            now, workloads=_all_unlogged(workloads), waiting=_all_unlogged(waiting)
        )
        return _with_log_or_without(
            lambda: _bring_about(HostTarget(now), act=True),
            lambda: _bring_about(HostTarget(silent), act=True),
            logs=silent != now,
        )


def _all_unlogged(workloads: Sequence[HostWorkload]) -> tuple[HostWorkload, ...]:
    """Return the workloads without rules that log."""
    return tuple(
        dataclasses.replace(one, options=_unlogged(one.options))
        if _is_logging(one.options)
        else one
        for one in workloads
    )


def as_they_are(workloads: Sequence[HostWorkload]) -> tuple[HostWorkload, ...]:
    """Return the workloads with the present cgroups. Call it while holding the lock.

    A service that starts later waits for the lock and finds what was done. With cgroups from
    before, one that has started since, and is held, would be released.
    """
    return tuple(
        dataclasses.replace(one, cgroup_id=cgroups.identify(one.cgroup)) for one in workloads
    )


def _bring_about(target: Target, *, act: bool) -> Outcome:
    families = _families()
    found = fingerprint.take()
    there = read_tables()
    steps: list[Step] = []
    chosen = choose(target.backend, there)
    # The chosen tables first: in between the workload is redirected twice rather than not at all.
    for backend in sorted(there, key=lambda backend: backend is not chosen):
        changes = {
            family: target.changes(backend, there[backend][family], family)
            if backend is chosen
            else changes_to(there[backend][family], {}, mark_new_tables=False)
            for family in families
        }
        if act and any(changes.values()):
            backend.write(changes, there[backend])
        steps += _steps(backend, changes)
    shown = {one: routing.shown(one, target.route_table) for one in families}
    steps += _routing(target, shown, act=act)
    is_routed = target.is_routed(Family.IPV4)
    rules = nftables.rules() if is_routed else ()
    taken, lack = _replies(target, shown, there, rules, act=act)
    steps += taken
    if act:
        target.finish()
    before = tuple(_foreign(target, families, there, rules)) if is_routed else ()
    return Outcome(tuple(steps), fingerprint.take(), found, before, replies=lack)


def _replies(
    target: Target,
    shown: Mapping[Family, Sequence[Any]],
    there: Mapping[Backend, ByFamily],
    rules: Sequence[nftables.Rule],
    *,
    act: bool,
) -> tuple[list[Step], str]:
    """Have replies marked where nothing objects; return the steps, and why they are not marked."""
    if not target.marks_replies:
        return [], ""
    user = next(filter(None, map(routing.rule_by_marks, shown.values())), "") or mark_users.first(
        (tables for by_family in there.values() for tables in by_family.values()), rules
    )
    routed = [one for one in shown if target.is_routed(one) and _has_loopback(one)]
    taken, lack = replies.bring_about(shown, routed, user, act=act)
    return [Step((one.family or Family.IPV4).label, _REPLIES, str(one)) for one in taken], lack


def _foreign(
    target: Target,
    families: tuple[Family, ...],
    there: Mapping[Backend, ByFamily],
    rules: Sequence[nftables.Rule],
) -> Iterator[str]:
    found = tuple(foreign.chains_before(nftables.chains(), rules))
    texts = nftables.texts_of([rule for _, rule in found])
    for (chain, _), text in zip(found, texts, strict=True):
        yield foreign.described(chain, text)
    for backend, by_family in there.items():
        for family, tables in by_family.items():
            yield from (f"{family.label} {backend.name} {one}" for one in foreign.marks_in(tables))
    for family in families:
        if target.is_routed(family) and _has_loopback(family):
            before = routing.before_ours(family, target.route_table)
            yield from (f"{family.label} routing rule {one}" for one in before)


def _families() -> tuple[Family, ...]:
    return (Family.IPV4, Family.IPV6) if _IPV6.exists() else (Family.IPV4,)


def read_tables() -> dict[Backend, Mapping[Family, Tables]]:
    """Return the tables of each kind that is installed. Raises SystemRefusedError."""
    families = _families()
    backends: list[Backend] = []
    if is_installed("nft"):
        backends.append(NftTables())
    if is_installed("legacy"):
        backends.append(LegacyTables())
    if not backends:
        raise SystemRefusedError("no iptables is installed; install Debian's package iptables")
    return {backend: backend.read(families) for backend in backends}


def choose(wish: str, there: Mapping[Backend, Mapping[Family, Tables]]) -> Backend:
    """Choose the tables that have our rules; else legacy where legacy has rules; else nft; else
    legacy."""
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


def _steps(backend: Backend, changes: Mapping[Family, tuple[Change, ...]]) -> list[Step]:
    return [
        Step(family.label, backend.name, str(change), tuple(map(str, change.rules)))
        for family, of_family in changes.items()
        for change in of_family
    ]


def _has_loopback(family: Family) -> bool:
    """Return whether the loopback interface has the family, without which no route can lead
    there."""
    if family is Family.IPV4:
        return True
    return _LOOPBACK_WITHOUT_IPV6.read_text(encoding="ascii").strip() == "0"


def _routing(target: Target, shown: Mapping[Family, Sequence[Any]], *, act: bool) -> list[Step]:
    steps: list[Step] = []
    table = target.route_table
    for family, answers in shown.items():
        wanted = target.is_routed(family) and _has_loopback(family)
        lines = (routing.missing if wanted else routing.present_in)(answers, table)
        if act and lines:
            (routing.add if wanted else routing.remove)(family, table, lines)
        verb = "add" if wanted else "drop"
        steps += [Step(family.label, "routing", f"{verb} {line}") for line in lines]
    return steps
