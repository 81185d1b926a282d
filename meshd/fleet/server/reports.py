"""Reads what a node reports, so that what processes die of costs no more than it has to."""

from __future__ import annotations

import contextlib

from meshd.base.attempts import Attempts
from meshd.fleet.server import rosters
from meshd.fleet.server.rosters import Noted, Report


def noting(attempts: Attempts | None) -> Noted:
    return attempts.noted if attempts else lambda _: contextlib.nullcontext()


def name_of(node: str) -> str:
    """Return the name of the record that stands for a node's reports."""
    return f"what node {node} reports"


def read(attempts: Attempts | None, node: str, message: bytes) -> Report:
    """Decode a report; if processes have died of one of this node, workload by workload, so that
    only the one at fault is left out.

    Raises InvalidInputError if nothing of the report can be taken.
    """
    name, noted = name_of(node), noting(attempts)
    with noted(name):
        listed = rosters.listed(message)
        if not attempts or not any(one.startswith(name) for one in attempts.suspected):
            return rosters.decode_each(listed)
    return rosters.decode_each(listed, lambda digest: noted(f"{name}, workload {digest}"))
