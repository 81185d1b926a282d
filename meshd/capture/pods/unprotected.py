"""Warnings about traffic that bypasses the mesh where the policy is to fail open."""

from __future__ import annotations

import logging

from meshd.model.workload import shown

_log = logging.getLogger(__name__)


def traffic(problem: str) -> str:
    """Return the warning; ``problem``: the reason, for users."""
    return f"UNPROTECTED, its traffic passes outside the mesh (failure_policy: open): {problem}"


def queries(problem: str) -> str:
    """Return the warning about DNS alone."""
    return (
        f"UNPROTECTED, its DNS queries pass outside the mesh (failure_policy: open): {problem};"
        " names of the mesh do not resolve"
    )


def complain(uid: str, text: str) -> None:
    fields = {"MESHD_WORKLOAD": uid, "MESHD_EVENT": "unprotected"}
    _log.error("workload %s: %s", shown(uid), text, extra=fields)
