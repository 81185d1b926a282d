"""What passes outside of the mesh where the policy is to fail open, said loudly."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


def traffic(problem: str) -> str:
    """``problem``: why, for people."""
    return f"UNPROTECTED, its traffic passes outside the mesh (failure_policy: open): {problem}"


def queries(problem: str) -> str:
    """The same of nothing but DNS."""
    return (
        f"UNPROTECTED, its DNS queries pass outside the mesh (failure_policy: open): {problem};"
        " names of the mesh do not resolve"
    )


def complain(uid: str, text: str) -> None:
    fields = {"MESHD_WORKLOAD": uid, "MESHD_EVENT": "unprotected"}
    _log.error("workload %s: %s", uid, text, extra=fields)
