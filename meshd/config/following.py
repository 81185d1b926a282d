"""Limits what may be applied on an agent: only what its server has put in force already."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from meshd.config import validate
from meshd.config.read import read_sources
from meshd.config.store import Store
from meshd.errors import InvalidInputError
from meshd.model.base import Object
from meshd.model.kubernetes import Service
from meshd.model.service import ServiceRecord
from meshd.wire import Apply, Change, Changed, DeleteNamed, Rejected


def answer(
    store: Store,
    request: Apply | DeleteNamed,
    server: str,
    services: Iterable[ServiceRecord] = (),
) -> Changed | Rejected:
    """Raises InvalidInputError, which names ``server``, when anything would be changed.

    ``services``: with the addresses that the mesh has chosen, and shows as if they were given.
    """
    refusal = InvalidInputError(
        f"this node is an agent: its configuration comes from {server}; run meshctl there"
    )
    if isinstance(request, DeleteNamed) or request.delete:
        raise refusal
    reading = read_sources(request.sources, request.namespace, store.objects)
    reads, passed_over = validate.stored_kinds(reading.objects)
    errors = tuple(one for one in reading.findings if one.severity == "error")
    if errors:
        return Rejected(errors)
    chosen = {(one.namespace, one.name): one.addresses for one in services}
    objects = [_as_given(read.object, store, chosen) for read in reads]
    if not all(_is_in_force(store, found) for found in objects):
        raise refusal
    keys = (found.key for found in objects)
    unchanged = tuple(Change(key.kind, key.namespace, key.name, "unchanged") for key in keys)
    return Changed(unchanged, tuple(map(str, passed_over)))


def _as_given(
    found: Object, store: Store, chosen: dict[tuple[str, str], tuple[str, ...]]
) -> Object:
    known = store.objects.get(found.key)
    if not isinstance(found, Service) or not isinstance(known, Service):
        return found
    addresses = chosen.get((found.key.namespace, found.key.name), ())
    if known.spec.cluster_ip is None and found.spec.cluster_ip in addresses:
        spec = msgspec.structs.replace(found.spec, cluster_ip=None, cluster_ips=())
        return msgspec.structs.replace(found, spec=spec)
    return found


def _is_in_force(store: Store, found: Object) -> bool:
    known = store.objects.get(found.key)
    if known is None:
        return False
    meta = msgspec.structs.replace(
        found.metadata,
        creation_timestamp=known.metadata.creation_timestamp,
        resource_version=known.metadata.resource_version,
        generate_name=known.metadata.generate_name,
    )
    return msgspec.structs.replace(found, metadata=meta) == known
