"""Foresees what a change of the configuration would do to the mesh, without making it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

import msgspec

from meshd.api.base import Key
from meshd.compile.comparison.compare import Difference, compare
from meshd.compile.comparison.parts import Client, Planned
from meshd.compile.comparison.planning import Planner
from meshd.compile.replacement.isolation import Isolating
from meshd.compile.trial import trial_clients
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload
from meshd.wire import Effect, Foreseen

PlaceOf = Callable[[Key, str], str]
"""Returns ``file:line`` of a field of an object; empty for an object that is in no file."""
_MOST: Final = 1000
"""Effects that are told."""


def dry_run(
    before: Snapshot, after: Snapshot, changed: Collection[Key], place_of: PlaceOf
) -> Foreseen:
    """Return what differs for the workloads of the snapshots.

    In namespaces of changed objects without workloads, one that may come stands for them. Raises
    InvalidInputError when a snapshot cannot be compiled, and none of its objects is why.
    """
    trial = (*trial_clients(after, changed).values(), *trial_clients(before, changed).values())
    missing = tuple(_missing(trial, before, after))
    planning: Isolating[Planned] = Isolating(Planner(), Planner)
    was = _planned(planning, before, missing)
    known = planning.problems
    becomes = _planned(planning, after, missing)
    found = [
        _effect(difference, clients, place_of)
        for difference, clients in compare(was, becomes).items()
    ]
    return Foreseen(
        tuple(found[:_MOST]),
        max(0, len(found) - _MOST),
        tuple(problem for problem in planning.problems if problem not in known),
        tuple(sorted({one.namespace for one in missing})) if found else (),
    )


def _missing(trial: Iterable[Workload], *snapshots: Snapshot) -> Iterator[Workload]:
    """Yield those of ``trial`` like which no workload runs."""
    running = [one for snapshot in snapshots for one in snapshot.workloads.values()]
    for one in trial:
        wanted = one.labels.items()
        alike = (
            other
            for other in running
            if other.namespace == one.namespace and wanted <= other.labels.items()
        )
        if not any(True for _ in alike):
            yield one


def _planned(
    planning: Isolating[Planned], snapshot: Snapshot, further: Iterable[Workload]
) -> Planned:
    workloads = {**snapshot.workloads, **{one.uid: one for one in further}}
    return planning.compile(msgspec.structs.replace(snapshot, workloads=workloads), workloads)


def _effect(difference: Difference, clients: Iterable[Client], place_of: PlaceOf) -> Effect:
    names: dict[str, list[str]] = {"namespace": [], "workload": [], "gateway": []}
    for client in clients:
        names.get(client.kind, []).append(client.name)
    origin = difference.origin
    return Effect(
        difference.change,
        difference.kind,
        difference.name,
        difference.details,
        tuple(names["namespace"]),
        tuple(names["workload"]),
        tuple(names["gateway"]),
        str(origin.key) if origin else "",
        origin.field if origin else "",
        place_of(origin.key, origin.field) if origin else "",
    )
