"""The Service in front of an enrolled workload, where Services come from a server."""

from __future__ import annotations

from typing import Final

import yaml

from meshd import wire
from meshd.api.object_fields import name_of
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject, mapping_at
from meshd.cli.daemon import Target
from meshd.workloads import offer

_FOUND_BY_SERVER: Final = ("creationTimestamp", "resourceVersion")


def check(
    target: Target, service: str, namespace: str, ports: tuple[wire.OfferedPort, ...]
) -> None:
    """Raises InvalidInputError if the Service cannot be as asked for, or not without its server."""
    stored = target.ask(wire.Get("Service", namespace=namespace), wire.Objects).objects
    before = next((one for one in stored if name_of(one) == service), None)
    after: JsonObject
    if before is None:
        after = offer.new_service(service, namespace, ports, {})
    else:
        after = offer.merged_service(before, ports)
    if after == before:
        return
    if control := target.ask(wire.Status(), wire.Statuses).control:
        raise InvalidInputError(elsewhere(control.server, after, is_new=before is None))


def elsewhere(server: str, service: JsonObject, *, is_new: bool) -> str:
    """Return what to apply on the server, where an agent's Services come from. Pure."""
    metadata = {
        key: value
        for key, value in mapping_at(service, "metadata").items()
        if value and key not in _FOUND_BY_SERVER
    }
    name = f"{metadata['namespace']}/{metadata['name']}"
    text = yaml.safe_dump({**service, "metadata": metadata}, sort_keys=False)
    what = "does not exist yet" if is_new else "lacks a port"
    return (
        f"Service {name} comes from {server}, and {what}; nothing was done. Run this on "
        f"the server, then repeat the command here:\n\nmeshctl apply -f - <<END\n{text}END"
    )
