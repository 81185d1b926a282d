"""Registers the services of this host that the configuration declares."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from meshd.api.base import Key
from meshd.api.service_entry.types import WorkloadEntry
from meshd.base.errors import InvalidInputError, MeshdError
from meshd.model.closed_workload import ClosedWorkload
from meshd.model.workload import Workload, shown
from meshd.node.mesh import Mesh
from meshd.workloads.host import declared, host_services
from meshd.workloads.intent import Action, Intent, claimed
from meshd.workloads.lifecycle import Phase

_AGAIN: Final = 5.0
"""Seconds after which what could not be recorded is tried again."""
_KEPT: Final = "{} is not in force; until it is, or is deleted, what it declares stays in the mesh"
_log = logging.getLogger(__name__)


class Declarations:
    """``begun`` returns the enrollments in work."""

    def __init__(self, mesh: Mesh, begun: Callable[[], Mapping[str, Intent]]) -> None:
        self._mesh = mesh
        self._begun = begun
        self._changed = asyncio.Event()
        self._problems: tuple[str, ...] = ()
        mesh.store.subscribe(self._changed.set)
        mesh.own.subscribe(self._changed.set)
        mesh.further_problems.append(lambda: "; ".join(self._problems))

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            self._changed.clear()
            try:
                self.follow()
            except MeshdError as error:
                _log.error("%s", error, extra={"MESHD_EVENT": "declared"})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN):
                    await self._changed.wait()

    def follow(self) -> None:
        """Register and unregister what the configuration says now. Raises MeshdError."""
        mesh, reconciler = self._mesh, self._mesh.reconciler
        registered = reconciler.known.registered
        found = mesh.store.objects.values()
        entries = [one for one in found if isinstance(one, WorkloadEntry)]
        # After a reboot, what is not in force would leave its unit outside of the mesh.
        closed = (one for one in mesh.store.closed if isinstance(one, ClosedWorkload))
        entries += (one for one in closed if _uid_of(one) not in registered)
        if not any(declared.ANNOTATION in one.metadata.annotations for one in entries) and not any(
            one.host and one.host.declared for one in registered.values()
        ):
            self._say(())
            return
        difference = declared.compare(entries, registered, mesh.own.every)
        keys = {uid: _key_of(registered[uid]) for uid in difference.unregister}
        gone = [uid for uid, key in keys.items() if mesh.store.is_gone(key)]
        kept = [_KEPT.format(key) for uid, key in keys.items() if uid not in gone]
        known = reconciler.known
        held = (one.workload for one in known.lives.values() if one.phase is Phase.HELD)
        there = {**{one.uid: one for one in held}, **registered}
        stays = [one for uid, one in there.items() if uid not in gone]
        accepted, problems = without_taken(difference.register, stays, self._begun())
        self._say((*difference.problems, *problems, *kept))
        if accepted:
            reconciler.register(accepted)
        if leave := (*gone, *intruders(registered.values())):
            reconciler.unregister(leave)

    def _say(self, problems: tuple[str, ...]) -> None:
        for problem in set(problems) - set(self._problems):
            _log.warning("%s", problem, extra={"MESHD_EVENT": "declared"})
        self._problems = problems


def _uid_of(entry: WorkloadEntry) -> str:
    return f"{entry.metadata.namespace}.{entry.metadata.name}"


def _key_of(workload: Workload) -> Key:
    """Return the key of the WorkloadEntry that declares a workload."""
    return Key(WorkloadEntry.KIND, workload.namespace, workload.name)


def without_taken(
    wanted: Iterable[Workload], there: Sequence[Workload], begun: Mapping[str, Intent]
) -> tuple[tuple[Workload, ...], tuple[str, ...]]:
    """Return the declared workloads that may be registered, and why others may not. Pure.

    Whoever is ``there``, or is being enrolled, keeps its unit, cgroup and ports. Those that are
    declared anew give theirs up for one another, so that they may swap them; but not those that are
    refused, which stay as they were.
    """
    changing = {one.uid: one for one in wanted}
    problems: dict[str, str] = {}
    others = (*there, *claimed(begun.values()))
    while True:
        accepted: list[Workload] = []
        refused: dict[str, str] = {}
        stay = [one for one in others if one.uid not in changing]
        for one in changing.values():
            try:
                _refuse_own(one, there, begun.get(one.uid))
                host_services.refuse_taken(one, (*stay, *accepted))
            except InvalidInputError as error:
                entry = f"WorkloadEntry {one.namespace}/{one.name}"
                refused[one.uid] = f"{entry}: annotation {declared.ANNOTATION}: {error}"
            else:
                accepted.append(one)
        if not refused:
            return tuple(accepted), tuple(problems.values())
        problems |= refused
        changing = {uid: one for uid, one in changing.items() if uid not in refused}


def intruders(registered: Iterable[Workload]) -> tuple[str, ...]:
    """Return the uids of declared workloads in the cgroup of one that was registered before them,
    as an older meshd allowed. Pure."""
    owners: dict[str, str] = {}
    return tuple(
        one.uid
        for one in registered
        if one.host and owners.setdefault(one.host.cgroup, one.uid) != one.uid and one.host.declared
    )


def _refuse_own(wanted: Workload, there: Iterable[Workload], begun: Intent | None) -> None:
    """Raises InvalidInputError if its uid is that of something else, or is in work."""
    if begun and begun.action is not Action.PREPARE:
        raise InvalidInputError(f"{shown(wanted.uid)} is being enrolled or unenrolled")
    own = next((one for one in there if one.uid == wanted.uid), None)
    if own is None or (own.host and own.host.declared):
        return
    if own.host is None or wanted.host is None or own.host.unit != wanted.host.unit:
        place = own.host.unit or own.host.cgroup if own.host else own.netns
        raise InvalidInputError(
            f"{shown(wanted.uid)} is {place} already; meshctl unenroll it first"
        )
