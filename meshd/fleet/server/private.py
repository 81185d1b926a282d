"""The Secrets that a node needs, so that it is told of no others. Pure.

A proxy reads those of its own namespace. A Gateway's go to the nodes that run a workload which it
selects; a DestinationRule's to those that run a workload which it selects, or a gateway if it
selects none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from meshd.api.base import exported
from meshd.api.gateway.types import SELECTION, GatewaySelection, fits, may_serve
from meshd.api.object_fields import kind_of, namespace_of
from meshd.base.json_values import Json, JsonObject, list_at, mapping_at, text_in
from meshd.model.workload import Workload

SECRET = "core/v1/Secret"  # noqa: S105 - a type URL
_NAMING = ("credentialName", "caCertCredentialName")
_AUTHORITY = "-cacert"
"""Ends the name of a Secret that holds the ``ca.crt`` of another."""


def needed_secrets(
    objects: Collection[JsonObject],
    workloads: Iterable[Workload],
    selection: GatewaySelection = SELECTION,
) -> frozenset[str]:
    """Return ``NAMESPACE/NAME`` of the Secrets that the workloads of one node need."""
    running = list(workloads)
    entrances = [found for found in objects if kind_of(found) == "Gateway"]
    gateways = [
        one for one in running if any(_serves(one, found, selection) for found in entrances)
    ]
    names: set[str] = set()
    for found in objects:
        namespaces = _namespaces(found, running, gateways, selection)
        for name in _credentials(found.get("spec")) if namespaces else ():
            owner, slash, short = name.rpartition("/")
            names.update(f"{one}/{short}" for one in namespaces if not slash or owner == one)
    return frozenset(names | {name + _AUTHORITY for name in names})


def may_name_secrets(found: JsonObject) -> bool:
    """Return whether an object may say which Secrets a node needs."""
    return kind_of(found) in {"Gateway", "DestinationRule"}


def _namespaces(
    found: JsonObject,
    running: list[Workload],
    gateways: list[Workload],
    selection: GatewaySelection,
) -> frozenset[str]:
    """Return the namespaces of workloads whose proxies read an object's Secrets."""
    namespace, spec = namespace_of(found), mapping_at(found, "spec")
    if kind_of(found) == "Gateway":
        return frozenset(one.namespace for one in running if _serves(one, found, selection))
    if kind_of(found) != "DestinationRule":
        return frozenset()
    if selector := mapping_at(spec, "workloadSelector"):
        wanted = mapping_at(selector, "matchLabels")
        chosen = (one.namespace for one in running if fits(wanted, one.labels))
        return frozenset({namespace} & {*chosen})
    seen_by = (one.namespace for one in gateways)
    export = tuple(text_in(one) for one in list_at(spec, "exportTo"))
    return frozenset(one for one in seen_by if exported(export, namespace, one))


def _serves(workload: Workload, gateway: JsonObject, selection: GatewaySelection) -> bool:
    """Return what ``Gateway.selects`` does, of an object that was not decoded."""
    within = may_serve(namespace_of(gateway), workload.namespace, workload.labels, selection)
    return within and fits(mapping_at(gateway, "spec", "selector"), workload.labels)


def _credentials(value: Json) -> Iterator[str]:
    """Yield each ``credentialName`` and its like in a value, at any depth."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in _NAMING and isinstance(part, str):
                yield part
            elif key == "credentialNames" and isinstance(part, list):
                yield from (name for name in part if isinstance(name, str))
            else:
                yield from _credentials(part)
    elif isinstance(value, list):
        for part in value:
            yield from _credentials(part)
