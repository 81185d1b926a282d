"""The Secrets that a node needs, so that it is told of no others. Pure.

A proxy reads those of its own namespace. A Gateway's go to the nodes that run a workload which it
selects; a DestinationRule's to those that run a workload which it selects, or a gateway if it
selects none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from meshd.api.base import exported
from meshd.model.workload import Workload

SECRET = "core/v1/Secret"  # noqa: S105 - a type URL
_NAMING = ("credentialName", "caCertCredentialName")
_AUTHORITY = "-cacert"
"""Ends the name of a Secret that holds the ``ca.crt`` of another."""


def needed_secrets(
    objects: Collection[dict[str, Any]], workloads: Iterable[Workload]
) -> frozenset[str]:
    """Return ``NAMESPACE/NAME`` of the Secrets that the workloads of one node need."""
    running = list(workloads)
    gateways = _gateways(objects, running)
    names: set[str] = set()
    for found in objects:
        namespaces = _namespaces(found, running, gateways)
        for name in _credentials(found["spec"]) if namespaces else ():
            owner, slash, short = name.rpartition("/")
            names.update(f"{one}/{short}" for one in namespaces if not slash or owner == one)
    return frozenset(names | {name + _AUTHORITY for name in names})


def _namespaces(
    found: dict[str, Any], running: list[Workload], gateways: list[Workload]
) -> frozenset[str]:
    """Return the namespaces of workloads whose proxies read an object's Secrets."""
    namespace, spec = found["metadata"].get("namespace", ""), found.get("spec", {})
    if found["kind"] == "Gateway":
        return frozenset(one.namespace for one in _selected(spec.get("selector", {}), running))
    if found["kind"] != "DestinationRule":
        return frozenset()
    if selector := spec.get("workloadSelector"):
        chosen = _selected(selector.get("matchLabels", {}), running)
        return frozenset({namespace} & {one.namespace for one in chosen})
    seen_by = (one.namespace for one in gateways)
    export = tuple(spec.get("exportTo", ()))
    return frozenset(one for one in seen_by if exported(export, namespace, one))


def _gateways(objects: Iterable[dict[str, Any]], running: list[Workload]) -> list[Workload]:
    selectors = [one["spec"].get("selector", {}) for one in objects if one["kind"] == "Gateway"]
    return [one for one in running if any(_selects(selector, one) for selector in selectors)]


def _selected(selector: dict[str, str], running: list[Workload]) -> Iterator[Workload]:
    return (one for one in running if _selects(selector, one))


def _selects(selector: dict[str, str], workload: Workload) -> bool:
    return bool(selector) and selector.items() <= workload.labels.items()


def _credentials(value: Any) -> Iterator[str]:
    """Yield each ``credentialName`` and its like in a value, at any depth."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in _NAMING and isinstance(part, str):
                yield part
            elif key == "credentialNames" and isinstance(part, list | tuple):
                yield from (name for name in part if isinstance(name, str))
            else:
                yield from _credentials(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _credentials(part)
