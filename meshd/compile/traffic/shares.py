"""Each workload's share of a proxy's connections: how many its listeners accept at a time.

What a listener has accepted counts, also connections that have not sent a byte yet. Another limit
ends no connection.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from meshd.base.errors import InvalidInputError
from meshd.base.numbers import whole
from meshd.compile.names import listener_name, workload_of
from meshd.model import connection_rate
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload, shown

ANNOTATION: Final = "meshd.io/max-connections"
"""Of a workload: connections that it opens, over all members of the pool."""
_OF_OTHERS: Final = 2
"""How many times as many connections it is sent, so that no single client takes all places."""
_MOST: Final = 10_000_000
_OUTBOUND: Final = listener_name("", "outbound")


def asked_connections(workload: Workload) -> int | None:
    """Return the number in the workload's annotation. Raises InvalidInputError."""
    text = workload.annotations.get(ANNOTATION)
    if text is None:
        return None
    asked = whole(text, _MOST)
    if not asked:
        raise InvalidInputError(
            f"workload {shown(workload.uid)}: annotation {ANNOTATION}: {text[:64]!r} is no number"
            f" of connections from 1 to {_MOST}; the setting proxy.max_connections_per_workload is"
            " in force"
        )
    return asked


def connections(workload: Workload, options: MeshOptions) -> int:
    """Return how many outbound connections each member accepts of a workload; 0: no limit."""
    try:
        asked = asked_connections(workload)
    except InvalidInputError:  # which ``problems`` tells
        asked = None
    return math.ceil(asked / options.proxies) if asked else options.workload_connections


def received(workload: Workload, options: MeshOptions) -> int:
    """Return how many connections to a workload each member accepts; 0: any number."""
    return _OF_OTHERS * connections(workload, options)


def received_rate(workload: Workload, options: MeshOptions) -> int:
    """Return how many new connections a second a workload may be sent; 0: any number."""
    text = workload.annotations.get(connection_rate.ANNOTATION, "")
    asked = whole(text, connection_rate.HIGHEST)  # capture tells what is wrong with it
    return connection_rate.received(options.connections_per_second if asked is None else asked)


def problems(workloads: Iterable[Workload]) -> list[str]:
    """Return what is wrong with the annotations."""
    found: list[str] = []
    for workload in workloads:
        try:
            asked_connections(workload)
        except InvalidInputError as error:
            found.append(str(error))
    return found


def limits(listeners: Iterable[str], of_workload: Mapping[str, int]) -> dict[str, int]:
    """Return the limit of each listener that has one; ``listeners``: names of all;
    ``of_workload``: limits by uid."""
    known = ((name, of_workload.get(workload_of(name), 0)) for name in listeners)
    return {
        name: limit if name.endswith(_OUTBOUND) else _OF_OTHERS * limit
        for name, limit in known
        if limit
    }
