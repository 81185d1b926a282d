"""Tries whether a wanted configuration can be put in force, before it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from meshd.api.base import Key, Object
from meshd.api.write import to_json
from meshd.compile.compiled import Compiled
from meshd.compile.compiler import Compiler
from meshd.compile.replacement.isolation import Isolating
from meshd.compile.trial import trial_clients
from meshd.fleet.server import mcp
from meshd.model.pool import Pool
from meshd.model.snapshot import Snapshot


def refused(
    snapshot: Snapshot,
    after: Mapping[Key, Object],
    changed: Collection[Key],
    before: Isolating[Mapping[Pool, Compiled]],
) -> tuple[str, ...]:
    """Return a line for each part that cannot be compiled. Raises InvalidInputError.

    ``before`` compiles what is in force, maybe right now, and has judged its objects.
    """
    trial = Isolating(Compiler(), Compiler, before)
    clients = trial_clients(snapshot, changed)
    trial.compile(msgspec.structs.replace(snapshot, workloads=clients), clients)
    for key in changed:
        mcp.encode(to_json(after[key]))  # as nodes are told of it
    return trial.problems
