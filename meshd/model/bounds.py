"""The identities that the workloads of a node may have. Pure.

A bound is a namespace, or ``NAMESPACE/SERVICE_ACCOUNT``; a node without bounds may have all of
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from meshd.base.errors import InvalidInputError

Bounds = tuple[str, ...]

_NAME: Final = re.compile(r"(?![.-])[a-z0-9.-]{1,253}(?<![.-])", re.ASCII)
"""RFC 1123, as Kubernetes has it."""


def checked(bounds: Iterable[str]) -> Bounds:
    """Return the bounds in order, each once. Raises InvalidInputError."""
    for bound in bounds:
        namespace, slash, account = bound.partition("/")
        if not _NAME.fullmatch(namespace) or (slash and not _NAME.fullmatch(account)):
            raise InvalidInputError(f"{bound!r} is neither NAMESPACE nor NAMESPACE/SERVICE_ACCOUNT")
    return tuple(sorted(set(bounds)))


def cover(bounds: Bounds, namespace: str, account: str) -> bool:
    return not bounds or namespace in bounds or f"{namespace}/{account}" in bounds


def show(bounds: Bounds) -> str:
    return ", ".join(bounds) or "any"


def refusal(node: str, bounds: Bounds, namespace: str, account: str) -> str:
    """Return why a node may not have a workload of that identity, and what to do."""
    return (
        f"node {node} is bound to {show(bounds)}, and this is {namespace}/{account}; on the "
        f"server, meshctl node bind {node} can change that"
    )
