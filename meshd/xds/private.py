"""Which Secrets a node needs, so that it is told of no others. Pure.

A Gateway's go to the nodes that run a workload which it selects, a DestinationRule's to those that
run any workload of its namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from meshd.model.workload import Workload

SECRET = "core/v1/Secret"  # noqa: S105 - a type URL
_NAMING = ("credentialName", "caCertCredentialName")
_AUTHORITY = "-cacert"
"""Ends the name of a Secret that holds the ``ca.crt`` of another."""


def needed_secrets(
    objects: Iterable[dict[str, Any]], workloads: Iterable[Workload]
) -> frozenset[str]:
    """``NAMESPACE/NAME`` of what the workloads of one node need."""
    running = list(workloads)
    namespaces = {one.namespace for one in running}
    names: set[str] = set()
    for found in objects:
        namespace = found["metadata"].get("namespace", "")
        match found["kind"]:
            case "Gateway" if _selects(found["spec"].get("selector", {}), running):
                names.update(f"{namespace}/{name}" for name in _credentials(found["spec"]))
            case "DestinationRule" if namespace in namespaces:
                names.update(
                    name if "/" in name else f"{namespace}/{name}"
                    for name in _credentials(found["spec"])
                )
            case _:
                pass
    return frozenset(names | {name + _AUTHORITY for name in names})


def _selects(selector: dict[str, str], workloads: list[Workload]) -> bool:
    return bool(selector) and any(selector.items() <= one.labels.items() for one in workloads)


def _credentials(value: Any) -> Iterator[str]:
    """Each ``credentialName`` in it and its like, however deep."""
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
