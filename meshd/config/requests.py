"""Answers meshctl's requests about the configuration. It changes nothing but the store."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from meshd.analysis import validate
from meshd.api import file_references, kinds
from meshd.api.base import Key, Object
from meshd.api.decode import nearest
from meshd.api.finding import Finding
from meshd.api.read import Read, read_sources
from meshd.api.write import to_json
from meshd.base.errors import InvalidInputError
from meshd.config.service_status import as_asked
from meshd.config.store import Store
from meshd.model.service import ServiceRecord
from meshd.model.workload import Workload
from meshd.wire import Apply, Changed, DeleteNamed, Get, Objects, Rejected

_NONE: Final[Mapping[Key, Object]] = {}


Refusals = Callable[[Mapping[Key, Object], Collection[Key]], tuple[str, ...]]
"""What of a configuration cannot be compiled, where some of its objects have changed."""


def _accept(_after: Mapping[Key, Object], _changed: Collection[Key]) -> tuple[str, ...]:
    return ()


def apply(
    store: Store,
    request: Apply,
    refusals: Refusals = _accept,
    workloads: Sequence[Workload] | None = None,
    services: Iterable[ServiceRecord] = (),
) -> Changed | Rejected:
    """Apply objects, or delete those of ``delete -f``; all or nothing.

    ``workloads``: all that run in the mesh, if that is known. ``refusals`` returns what cannot be
    compiled, and is asked before anything is stored. ``services`` have the addresses that ``get``
    shows. Raises SystemRefusedError if the store cannot be written.
    """
    reading = read_sources(request.sources, request.namespace, store.objects)
    reads, passed_over = validate.stored_kinds(reading.objects)
    records = tuple(services)
    reads = tuple(
        dataclasses.replace(read, object=as_asked(read.object, store.objects, records))
        for read in reads
    )
    findings = [*reading.findings, *passed_over, *_in_files(store, reads)]
    if request.only_namespace:
        findings += _elsewhere(reads, request.namespace)
    if request.delete and request.ignore_missing:
        reads = tuple(read for read in reads if read.object.key in store.objects)
    elif request.delete:
        findings += _missing(store, reads)
    else:
        findings += validate.check_damaged(reading.damaged)
        findings += validate.check_fields(reads)
        findings += validate.check_references(reads, store.objects, workloads=workloads)
        findings += validate.out_of_date(reads, time.time())
    errors = tuple(finding for finding in findings if finding.severity == "error")
    if errors:
        return Rejected(errors)
    objects = [read.object for read in reads]
    warnings = tuple(str(finding) for finding in findings)
    if not request.delete and (refused := _refused(store, reads, refusals)):
        return Rejected(refused)
    keys = [found.key for found in objects]
    if request.delete:
        lost = _lost(store, keys, (), workloads)
        return Changed(store.delete(keys, dry_run=request.dry_run), (*warnings, *lost))
    lost = _lost(store, keys, objects, workloads)
    return Changed(store.put(objects, dry_run=request.dry_run), (*warnings, *lost))


def delete(
    store: Store, request: DeleteNamed, workloads: Sequence[Workload] | None = None
) -> Changed:
    """Delete objects by name.

    ``workloads``: all that run in the mesh, if that is known. Raises InvalidInputError if an object
    is not found; then none is deleted.
    """
    kind = find_kind(request.kind)
    keys = [_key(kind, request.namespace, name) for name in request.names]
    if request.ignore_missing:
        keys = [key for key in keys if key in store.objects]
    lost = _lost(store, keys, (), workloads)
    return Changed(store.delete(keys, dry_run=request.dry_run), lost)


def _lost(
    store: Store,
    changed: Collection[Key],
    applied: Iterable[Object],
    workloads: Sequence[Workload] | None,
) -> tuple[str, ...]:
    """Return what other objects will miss; objects that are changed but not applied are deleted."""
    left = dict(store.objects)
    for key in changed:
        left.pop(key, None)
    after = {**left, **{found.key: found for found in applied}}
    return validate.newly_dangling(store.objects, after, changed, workloads)


def get(store: Store, request: Get, made: Mapping[Key, Object] = _NONE) -> Objects:
    """Return stored objects; ``made`` are further ones. Raises InvalidInputError if the kind is
    unknown or nothing has the name."""
    kind = find_kind(request.kind)
    namespace = request.namespace if kind.NAMESPACED else ""
    found = [
        to_json(stored)
        for key, stored in sorted({**made, **store.objects}.items())
        if key.kind == kind.KIND
        and request.name in {"", key.name}
        and namespace in {"", key.namespace}
    ]
    if request.name and not found:
        raise InvalidInputError(f"{Key(kind.KIND, namespace, request.name)} not found")
    return Objects(tuple(found))


def validate_sources(
    sources: Iterable[tuple[str, str]],
    namespace: str = "default",
    directories: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Return all findings about texts, without a store (``meshctl validate``).

    ``directories``: where nodes read files that objects name; none: that is not known.
    """
    reading = read_sources(tuple(sources), namespace)
    findings = (
        *reading.findings,
        *validate.check_damaged(reading.damaged),
        *validate.check_fields(reading.objects),
        *validate.check_references((*reading.objects, *(read for read, _ in reading.damaged)), {}),
        *validate.out_of_date(reading.objects, time.time()),
        *(file_references.outside(reading.objects, directories) if directories else ()),
    )
    return tuple(sorted(findings, key=lambda finding: (finding.file, finding.line)))


def find_kind(name: str) -> type[Object]:
    """Return the kind that users call so (``vs``). Raises InvalidInputError."""
    kind = kinds.BY_NAME.get(name.lower())
    if kind is None:
        known = [found.PLURALS[0] for found in kinds.ALL]
        hint = nearest(name.lower(), known)
        raise InvalidInputError(f"unknown kind {name}{hint}")
    return kind


def _key(kind: type[Object], namespace: str, name: str) -> Key:
    return Key(kind.KIND, namespace if kind.NAMESPACED else "", name)


def _refused(store: Store, reads: Iterable[Read], refusals: Refusals) -> tuple[Finding, ...]:
    """Return findings about applied objects that would not compile; faults of other objects refuse
    nothing new."""
    by_key = {read.object.key: read for read in reads}
    by_name = {str(key): read for key, read in by_key.items()}
    after = {**store.objects, **{key: read.object for key, read in by_key.items()}}
    found: list[Finding] = []
    for problem in refusals(after, by_key.keys()):
        name, _, reason = problem.partition(" is left out, because it ")
        if read := by_name.get(name):
            found.append(read.finding((), reason.rpartition(";")[0]))
    return tuple(found)


def _in_files(store: Store, reads: Iterable[Read]) -> list[Finding]:
    return [
        read.finding((), f"lives in {place}; change it there")
        for read in reads
        if (place := store.file_of(read.object.key))
    ]


def _elsewhere(reads: Iterable[Read], namespace: str) -> list[Finding]:
    message = f"is not {namespace}, which -n says; leave out one of the two"
    return [
        read.finding(("metadata", "namespace"), message)
        for read in reads
        if read.object.NAMESPACED and read.object.metadata.namespace != namespace
    ]


def _missing(store: Store, reads: Iterable[Read]) -> list[Finding]:
    return [read.finding((), "not found") for read in reads if read.object.key not in store.objects]
