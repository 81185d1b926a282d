"""Captures a service of the host before it starts, or drops its traffic until it is captured.

This is the body of ``inside.run_in_host``'s child, as ``apply`` is. It needs no daemon: what was
enrolled is on disk, and what is captured in the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshd.capture.host.rules import HostWorkload, held_workloads, holds, is_captured_here
from meshd.capture.rules import locks
from meshd.capture.rules.apply import as_they_are, choose, read_tables
from meshd.capture.rules.delta import PREFIX, Change, Tables, changes_to
from meshd.capture.rules.rule import Family
from meshd.capture.rules.rules import HOLD_IN_CHAIN, HOLD_OUT_CHAIN, NEW_TABLE_CHAIN

_OURS = frozenset({HOLD_IN_CHAIN, HOLD_OUT_CHAIN, NEW_TABLE_CHAIN})


def hold(starting: HostWorkload, enrolled: Sequence[HostWorkload], backend: str = "auto") -> bool:
    """Return whether the service has to be held; False: it is captured.

    ``enrolled`` are all, this one included. Raises SystemRefusedError.
    """
    with locks.locked(locks.RULES):  # services start at the same time
        (own,) = as_they_are((starting,))
        return _hold(own, as_they_are(enrolled), backend)


def _hold(starting: HostWorkload, enrolled: Sequence[HostWorkload], backend: str) -> bool:
    there = read_tables()
    chosen = choose(backend, there)
    if all(is_captured_here(tables, starting, family) for family, tables in there[chosen].items()):
        return False
    changes = {
        family: _changes(tables, starting, enrolled, family, mark=chosen.remembers_new_tables)
        for family, tables in there[chosen].items()
    }
    if any(changes.values()):
        chosen.write(changes, there[chosen])
    return True


def _changes(
    tables: Tables,
    starting: HostWorkload,
    enrolled: Sequence[HostWorkload],
    family: Family,
    *,
    mark: bool,
) -> tuple[Change, ...]:
    """Return changes of the chains that hold, and of no others."""
    held = held_workloads(tables) | {starting.uid}
    wanted = holds([one for one in enrolled if one.uid in held], family)
    part = {
        table: {
            name: chain
            for name, chain in chains.items()
            if not name.startswith(PREFIX) or name in _OURS
        }
        for table, chains in tables.items()
        if table == "raw"
    }
    return changes_to(part, {"raw": wanted} if wanted else {}, mark_new_tables=mark)
