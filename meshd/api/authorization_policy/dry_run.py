"""AuthorizationPolicies on trial: it is noted what they would deny, and nothing is denied. Pure.

https://istio.io/latest/docs/tasks/security/authorization/authz-dry-run/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.decode import Path

ANNOTATION: Final = "istio.io/dry-run"
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"", "0", "f", "F", "false", "FALSE", "False"})
"""As Go reads a truth value."""


def is_dry_run(found: AuthorizationPolicy) -> bool:
    """Return whether a policy is on trial. One whose annotation says neither is not."""
    return is_on_trial(found.metadata.annotations.get(ANNOTATION, ""))


def is_on_trial(annotation: str) -> bool:
    return annotation in _TRUE


def dry_run_problems(found: AuthorizationPolicy) -> Iterator[tuple[Path, str]]:
    """Yield what is wrong with the annotation of a policy."""
    path, text = ("metadata", "annotations", ANNOTATION), found.metadata.annotations.get(ANNOTATION)
    if text is not None and text not in _TRUE | _FALSE:
        yield path, f'"{text}" is neither true nor false'
    elif is_dry_run(found) and found.spec.action not in {"ALLOW", "DENY"}:
        yield path, f"is for ALLOW and DENY; {found.spec.action} has no dry run: leave it out"
