"""Decides whether a workload is in the mesh, and why. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from meshd.api.base import Object
from meshd.api.kubernetes.types import Namespace
from meshd.model.workload import Workload

_MODE = "istio.io/dataplane-mode"
_INJECTION = "istio-injection"
_INJECT = "sidecar.istio.io/inject"


@dataclasses.dataclass(frozen=True, slots=True)
class Enrolment:
    enrolled: bool
    reason: str


def decide(
    namespace_labels: Mapping[str, str],
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    otherwise: bool,
) -> Enrolment:
    """Return the decision: the workload's own words win over its namespace's, and those over
    ``otherwise``."""
    mode = labels.get(_MODE)
    if mode in {"none", "ambient"}:
        return Enrolment(mode == "ambient", f"its label {_MODE}: {mode}")
    for what, place in (("label", labels), ("annotation", annotations)):
        if (inject := place.get(_INJECT, "").lower()) in {"true", "false"}:
            return Enrolment(inject == "true", f'its {what} {_INJECT}: "{inject}"')
    mode = namespace_labels.get(_MODE)
    if mode in {"none", "ambient"}:
        return Enrolment(mode == "ambient", f"its namespace's label {_MODE}: {mode}")
    injection = namespace_labels.get(_INJECTION)
    if injection in {"enabled", "disabled"}:
        return Enrolment(injection == "enabled", f"its namespace's label {_INJECTION}: {injection}")
    registered = "in the mesh" if otherwise else "outside the mesh"
    return Enrolment(otherwise, f"no label says; it was registered as {registered}")


def namespaces(objects: Iterable[Object]) -> dict[str, Namespace]:
    """Return the namespaces among objects, by name."""
    return {one.metadata.name: one for one in objects if isinstance(one, Namespace)}


def of_workload(workload: Workload, namespaces: Mapping[str, Namespace]) -> Enrolment:
    namespace = namespaces.get(workload.namespace)
    return decide(
        namespace.metadata.labels if namespace else {},
        workload.labels,
        workload.annotations,
        workload.enrolled,
    )
