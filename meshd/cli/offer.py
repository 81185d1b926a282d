"""The Service in front of an enrolled workload: created, joined or removed."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
import yaml

from meshd import wire
from meshd.base.errors import InvalidInputError
from meshd.cli.daemon import Target
from meshd.cli.ports import PortWish, merged_service, new_service
from meshd.model.workload import Workload

_MADE_FOR: Final = "meshd.io/made-for"
"""Annotation of a Service that was made by ``enroll``: the workload that it was made for."""
_FOUND_BY_SERVER: Final = ("creationTimestamp", "resourceVersion")


def offered(
    target: Target, service: str, wishes: tuple[PortWish, ...], workload: Workload
) -> Workload:
    """Return the workload with the labels by which the Service selects it.

    Raises InvalidInputError before anything is changed if the Service has to be created on the
    server.
    """
    namespace = workload.namespace
    stored = target.ask(wire.Get("Service", namespace=namespace), wire.Objects).objects
    before = next((one for one in stored if one["metadata"]["name"] == service), None)
    if before is None:
        after = new_service(service, namespace, wishes, {"app": service}, {})
    else:
        after = merged_service(before, wishes)
    if after != before:
        control = target.ask(wire.Status(), wire.Statuses).control
        if control:
            raise InvalidInputError(elsewhere(control.server, after, is_new=before is None))
        if before is None:
            after["metadata"]["annotations"] = {_MADE_FOR: workload.uid}
        target.ask(wire.Apply((("enroll", json.dumps(after)),), namespace), wire.Changed)
    labels = workload.labels | after["spec"]["selector"]
    return msgspec.structs.replace(workload, labels=labels)


def take_back(target: Target, namespace: str, uid: str) -> None:
    """Delete the Service that was created for the workload."""
    stored = target.ask(wire.Get("Service", namespace=namespace), wire.Objects).objects
    names = tuple(
        one["metadata"]["name"]
        for one in stored
        if one["metadata"].get("annotations", {}).get(_MADE_FOR) == uid
    )
    if names:
        target.ask(wire.DeleteNamed("Service", names, namespace), wire.Changed)


def elsewhere(server: str, service: dict[str, Any], *, is_new: bool) -> str:
    """Return what to apply on the server, where an agent's Services come from. Pure."""
    metadata = {
        key: value
        for key, value in service["metadata"].items()
        if value and key not in _FOUND_BY_SERVER
    }
    name = f"{metadata['namespace']}/{metadata['name']}"
    text = yaml.safe_dump(service | {"metadata": metadata}, sort_keys=False)
    what = "does not exist yet" if is_new else "lacks a port"
    return (
        f"Service {name} comes from {server}, and {what}; nothing was done. Run this on "
        f"the server, then repeat the command here:\n\nmeshctl apply -f - <<END\n{text}END"
    )
