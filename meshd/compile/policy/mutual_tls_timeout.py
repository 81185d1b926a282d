"""Tells how long a client of one workload may take to begin mutual TLS.

Until the timeout, a client that sends nothing, or less than a TLS hello, is not known to use
plaintext.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from meshd.api.base import Duration
from meshd.base.errors import InvalidInputError
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload, shown

ANNOTATION: Final = "meshd.io/mutual-tls-timeout"
SHORTEST: Final = 0.05
LONGEST: Final = 60
"""Seconds."""


def asked_timeout(workload: Workload) -> float | None:
    """Return the timeout of the workload's annotation in seconds; None if there is no annotation.

    Raises InvalidInputError if the annotation is invalid.
    """
    text = workload.annotations.get(ANNOTATION)
    if text is None:
        return None
    try:
        asked = Duration.parse(text)
    except ValueError:
        asked = Duration(0)
    if not SHORTEST <= asked <= LONGEST:
        raise InvalidInputError(
            f"workload {shown(workload.uid)}: annotation {ANNOTATION}: {text[:64]!r} is not a"
            f" duration from 50ms to {LONGEST}s; the setting mesh.mutual_tls_timeout is in force"
        )
    return asked


def timeout(workload: Workload, options: MeshOptions) -> float:
    """Return the timeout of a workload in seconds; the setting's, if its annotation is invalid."""
    try:
        return asked_timeout(workload) or options.mutual_tls_timeout
    except InvalidInputError:  # ``problems`` reports it
        return options.mutual_tls_timeout


def problems(workloads: Iterable[Workload]) -> list[str]:
    """Return the problems of the workloads' annotations."""
    return list(_problems(workloads))


def _problems(workloads: Iterable[Workload]) -> Iterator[str]:
    for workload in workloads:
        try:
            asked_timeout(workload)
        except InvalidInputError as error:
            yield str(error)
