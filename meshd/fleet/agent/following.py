"""Limits what may be applied on an agent to what its server has put in force already."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from meshd.analysis import validate
from meshd.api.base import Object
from meshd.api.read import read_sources
from meshd.base.errors import InvalidInputError
from meshd.config.service_status import as_asked
from meshd.config.store import Store
from meshd.model.service import ServiceRecord
from meshd.wire import Apply, Change, Changed, DeleteNamed, Rejected


def answer(
    store: Store,
    request: Apply | DeleteNamed,
    server: str,
    services: Iterable[ServiceRecord] = (),
) -> Changed | Rejected:
    """Return the answer to a request that changes nothing.

    ``services`` have the addresses that the mesh has chosen, and shows as if they had been asked
    for. Raises InvalidInputError, which names ``server``, if anything would be changed.
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
    known = tuple(services)
    objects = [as_asked(read.object, store.objects, known) for read in reads]
    if not all(_is_in_force(store, found) for found in objects):
        raise refusal
    keys = (found.key for found in objects)
    unchanged = tuple(Change(key.kind, key.namespace, key.name, "unchanged") for key in keys)
    return Changed(unchanged, tuple(map(str, passed_over)))


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
