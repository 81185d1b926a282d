"""Tells whether services and workloads differ in no more than which endpoints are ready, and their
weights."""

from __future__ import annotations

import msgspec

from meshd.model.service import Endpoint, ServiceRecord
from meshd.model.workload import Workload


def is_the_same(old: object, new: object) -> bool:
    """Return whether two values of one service or workload differ in readiness only."""
    if isinstance(old, ServiceRecord) and isinstance(new, ServiceRecord):
        return with_readiness(old, new) == new
    if isinstance(old, Workload) and isinstance(new, Workload):
        return msgspec.structs.replace(old, ready=new.ready) == new
    return old == new


def with_readiness(record: ServiceRecord, other: ServiceRecord) -> ServiceRecord:
    """Return a record whose endpoints are as ready as those of another record of the service."""
    if len(record.endpoints) != len(other.endpoints):
        return record
    endpoints = tuple(map(_as_ready, record.endpoints, other.endpoints))
    return msgspec.structs.replace(record, endpoints=endpoints)


def _as_ready(endpoint: Endpoint, other: Endpoint) -> Endpoint:
    if endpoint.ready == other.ready and endpoint.weight == other.weight:
        return endpoint
    return msgspec.structs.replace(endpoint, ready=other.ready, weight=other.weight)
