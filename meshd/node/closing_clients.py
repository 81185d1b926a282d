"""Closes at clients what lost configuration closes, and keeps clients of this node from being
refused by what closes at its workloads, before either is compiled. Pure.

A host that is closed waits for the compilation, as each object does: for whom it is closed follows
from what every client sees.
"""

from __future__ import annotations

from collections.abc import Collection

from meshd.compile.shortcuts.reached import Changed, Reached, closed_passthrough
from meshd.node.packing import packed
from meshd.xds.resources import Resource


def for_clients(
    reached: Reached | None,
    changed: Changed,
    judging: Collection[str] = (),
    *,
    is_lost: bool,
) -> tuple[Resource, ...]:
    """Return the clusters and endpoints that replace those of what was compiled.

    ``reached``: None if nothing was. ``changed``: the workloads of this node that have become
    stricter; ``judging``: those about which AuthorizationPolicies have become stricter.
    ``is_lost``: configuration has been lost since.
    """
    if reached is None:
        return ()
    way_out = closed_passthrough(reached.snapshot.options) if is_lost else None
    return tuple(map(packed, filter(None, (*reached.under(changed, judging), way_out))))
