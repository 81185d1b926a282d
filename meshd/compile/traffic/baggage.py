"""Writes what a tunnel's request says of the workload that opens the connection: ``baggage``.

The form is that of https://www.w3.org/TR/baggage/, the keys are those of Istio's ambient mode,
after https://opentelemetry.io/docs/specs/semconv/resource/k8s/. It is the client's word: who calls
is said by its certificate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote

from meshd.api.locality import locality_of, parts
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload

_NAME: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
_REVISION: Final = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
"""Labels, the first of which counts that is there:
https://istio.io/latest/docs/ops/deployment/application-requirements/."""
_LATEST: Final = "latest"


def baggage(workload: Workload, options: MeshOptions) -> str:
    """Return the header's value. Of labels, only those that name the service and its version count,
    so that others may change."""
    members = (f"{key}={quote(value, safe='')}" for key, value in _members(workload, options))
    return ",".join(members)


def _members(workload: Workload, options: MeshOptions) -> Iterator[tuple[str, str]]:
    yield "k8s.namespace.name", workload.namespace
    if workload.host is None:
        yield "k8s.pod.name", workload.name
    yield "service.name", _first(workload.labels, _NAME) or workload.name
    yield "service.version", _first(workload.labels, _REVISION) or _LATEST
    locality = locality_of(workload.labels, workload.locality or options.locality)
    region, zone, _ = parts(locality)
    if region:
        yield "cloud.region", region
    if zone:
        yield "cloud.availability_zone", zone


def _first(labels: Mapping[str, str], keys: tuple[str, ...]) -> str:
    return next((labels[key] for key in keys if labels.get(key)), "")
