"""How long a client of one workload may take to begin mutual TLS.

Until then a client that says nothing, or less than a TLS hello, is not known to be plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from meshd.api.base import Duration
from meshd.base.errors import InvalidInputError
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload

ANNOTATION: Final = "meshd.io/mutual-tls-timeout"
SHORTEST: Final = 0.05
LONGEST: Final = 60
"""Seconds."""


def asked_timeout(workload: Workload) -> float | None:
    """What the workload's annotation says, in seconds. Raises InvalidInputError."""
    text = workload.annotations.get(ANNOTATION)
    if text is None:
        return None
    try:
        asked = Duration.parse(text)
    except ValueError:
        asked = Duration(0)
    if not SHORTEST <= asked <= LONGEST:
        raise InvalidInputError(
            f"workload {workload.uid}: annotation {ANNOTATION}: {text[:64]!r} is no duration from"
            f" 50ms to {LONGEST}s; the setting mesh.mutual_tls_timeout is in force"
        )
    return asked


def timeout(workload: Workload, options: MeshOptions) -> float:
    """Seconds."""
    try:
        return asked_timeout(workload) or options.mutual_tls_timeout
    except InvalidInputError:  # which ``problems`` tells
        return options.mutual_tls_timeout


def problems(workloads: Iterable[Workload]) -> list[str]:
    """What is wrong with the annotations."""
    return list(_problems(workloads))


def _problems(workloads: Iterable[Workload]) -> Iterator[str]:
    for workload in workloads:
        try:
            asked_timeout(workload)
        except InvalidInputError as error:
            yield str(error)
