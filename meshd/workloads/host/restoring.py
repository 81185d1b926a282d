"""Restores registered workloads and their phases from two records on disk and the pins. Pure.

A damaged record never releases captured traffic: its workload is not served until it is registered
again or given up, and no other is affected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from meshd.model.workload import Workload, shown
from meshd.workloads import remains
from meshd.workloads.lifecycle import Life, Phase
from meshd.workloads.record import Loaded

_UNKNOWN = "its record is lost"


class Restored(msgspec.Struct, frozen=True):
    registered: dict[str, Workload]
    lives: dict[str, Life]
    problems: dict[str, str]
    """What is to be said of a workload, by uid."""


def restore(services: Loaded, running: Loaded, pinned: Collection[str]) -> Restored:
    """Return what was registered, and how far each workload is.

    ``services``: those of the host, which outlive a reboot; ``running``: all workloads. ``pinned``:
    uids whose namespaces are held.
    """
    registered = dict(_registered(services, running))
    lives = dict(running.record.lives)
    for uid, workload in registered.items():
        if uid not in lives and (running.lost or uid in running.problems):
            # If it was captured, it is not to be let go in between.
            lives[uid] = Life(workload, Phase.CAPTURED)
    unusable = {**running.unusable, **services.unusable}
    if running.lost:
        unusable |= {uid: found for uid in pinned if (found := remains.of(uid))}
    lives |= {
        uid: Life(workload, Phase.HELD)
        for uid, workload in unusable.items()
        if uid not in lives and uid not in registered
    }
    return Restored(registered, lives, dict(_problems(services, running, lives)))


def _registered(services: Loaded, running: Loaded) -> Iterator[tuple[str, Workload]]:
    """Yield registered workloads; one whose registration is damaged is taken as it was last
    served."""
    there = running.record.registered
    for uid in services.unusable.keys() | running.unusable.keys():
        if uid in running.record.lives:
            yield uid, running.record.lives[uid].workload
    for uid, workload in there.items():
        if workload.host is None or services.lost or uid in services.problems:
            yield uid, workload
    yield from services.record.registered.items()


def _problems(
    services: Loaded, running: Loaded, lives: dict[str, Life]
) -> Iterator[tuple[str, str]]:
    reasons = {**running.problems, **services.problems}
    held = {uid for uid, life in lives.items() if life.phase is Phase.HELD}
    for uid in sorted(reasons.keys() | held):
        if uid in held:
            consequence = "it stays captured and is not served: register it again, or unregister it"
        elif uid in lives:
            consequence = "it goes on as it was served last: register it again"
        else:
            consequence = "it is left out: register it again"
        yield uid, f"workload {shown(uid)}: {reasons.get(uid, _UNKNOWN)}; {consequence}"


def pinned(directory: Path) -> tuple[str, ...]:
    """Return the uids of workloads whose namespaces are held there."""
    try:
        return tuple(path.name.partition("@")[0] for path in directory.iterdir())
    except OSError:
        return ()
