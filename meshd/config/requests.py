"""Judges and answers meshctl's requests about the configuration."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from meshd.analysis import validate
from meshd.api import file_references, kinds
from meshd.api.base import Key, Object
from meshd.api.decode import nearest
from meshd.api.finding import Finding
from meshd.api.read import Read, Reading, read_sources
from meshd.api.write import to_json
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import Json, mapping_in, text_in
from meshd.config import withheld
from meshd.config.moment import Moment, Transaction
from meshd.config.service_status import as_asked
from meshd.model.service import ServiceRecord
from meshd.model.workload import Workload
from meshd.wire import Apply, Changed, DeleteNamed, Get, Objects, Rejected

_NO_OBJECTS: Final = "the manifest contains no objects"
_NONE: Final[Mapping[Key, Object]] = {}


Refusals = Callable[[Mapping[Key, Object], Collection[Key]], tuple[str, ...]]
"""All objects and the keys of those that have changed → what of them cannot be compiled."""


def _accept(_after: Mapping[Key, Object], _changed: Collection[Key]) -> tuple[str, ...]:
    return ()


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """A change that may be made."""

    transaction: Transaction
    warnings: tuple[str, ...]

    @property
    def answer(self) -> Changed:
        return Changed(self.transaction.changes, self.warnings)


def judged(
    store: Moment,
    request: Apply,
    refusals: Refusals = _accept,
    workloads: Sequence[Workload] | None = None,
    services: Iterable[ServiceRecord] = (),
) -> Judged | Rejected:
    """Return the change that is asked for, if it may be made. Nothing is stored.

    ``refusals`` returns what cannot be compiled. ``workloads``: all workloads that run in the mesh,
    if they are known. ``services`` have the addresses that ``get`` shows. It takes as long as what
    is asked for is large, and may be called in a thread.
    """
    reading = read_sources(request.sources, request.namespace, store.objects)
    reads, passed_over = validate.stored_kinds(reading.objects)
    records = tuple(services)
    reads = tuple(
        dataclasses.replace(read, object=as_asked(read.object, store.objects, records))
        for read in reads
    )
    unread, found_out = _unread(store, reading, request)
    findings = [*found_out, *passed_over, *_in_files(store, reads)]
    if request.only_namespace:
        findings += _elsewhere(reads, request.namespace)
    if request.delete and request.ignore_missing:
        reads = tuple(read for read in reads if store.has(read.object.key))
    elif request.delete:
        findings += _missing(store, reads)
    else:
        findings += validate.check_damaged(reading.damaged)
        findings += validate.check_fields(reads)
        findings += validate.check_references(
            reads,
            store.objects,
            workloads=workloads,
            gateway_selection=store.gateway_selection,
        )
        findings += validate.out_of_date(reads, time.time())
    errors = tuple(finding for finding in findings if finding.severity == "error")
    if errors:
        return Rejected(errors)
    objects = [read.object for read in reads]
    warnings = tuple(str(finding) for finding in findings)
    if not request.delete and (refused := _refused(store, reads, refusals)):
        return Rejected(refused)
    keys = list(dict.fromkeys((*(found.key for found in objects), *unread)))
    if request.delete:
        lost = _lost(store, keys, (), workloads)
        return Judged(store.delete(keys), (*warnings, *lost))
    lost = _lost(store, keys, objects, workloads)
    return Judged(store.put(objects), (*warnings, *lost))


def outcome(
    store: Moment, request: Apply | DeleteNamed, changed: Collection[Key]
) -> tuple[Mapping[Key, Object], Mapping[Key, Read]]:
    """Return the objects as a change that was accepted but not made would leave them, and the
    applied objects as they were read."""
    objects = store.objects
    left = {key: found for key, found in objects.items() if key not in changed}
    if isinstance(request, DeleteNamed) or request.delete:
        return left, {}
    reads = read_sources(request.sources, request.namespace, objects).objects
    applied = {read.object.key: read for read in reads if read.object.key in changed}
    return {**left, **{key: store.dated(read.object) for key, read in applied.items()}}, applied


def judged_deletion(
    store: Moment, request: DeleteNamed, workloads: Sequence[Workload] | None = None
) -> Judged:
    """Return the deletion of objects by name. Nothing is stored.

    ``workloads``: all workloads that run in the mesh, if they are known. Raises InvalidInputError
    if an object is not found; then no object is to be deleted.
    """
    keys = list(
        dict.fromkeys(
            _key(find_kind(one.kind), request.namespace, name)
            for one in request.objects
            for name in one.names
        )
    )
    if request.ignore_missing:
        keys = [key for key in keys if store.has(key)]
    lost = _lost(store, keys, (), workloads)
    return Judged(store.delete(keys), lost)


def _lost(
    store: Moment,
    changed: Collection[Key],
    applied: Iterable[Object],
    workloads: Sequence[Workload] | None,
) -> tuple[str, ...]:
    """Return the references that a change will break.

    The objects that are changed but not applied are deleted.
    """
    left = dict(store.objects)
    for key in changed:
        left.pop(key, None)
    after = {**left, **{found.key: found for found in applied}}
    return validate.newly_dangling(
        store.objects, after, changed, workloads, gateway_selection=store.gateway_selection
    )


def get(store: Moment, request: Get, made: Mapping[Key, Object] = _NONE) -> Objects:
    """Return the stored objects that match a request.

    ``made``: further objects, which are not stored. Raises InvalidInputError if the kind is unknown
    or no object has the name.
    """
    kind = find_kind(request.kind)
    namespace = request.namespace if kind.NAMESPACED else ""
    chosen = (
        (key, stored)
        for key, stored in {**made, **store.objects}.items()
        if key.kind == kind.KIND
        and request.name in {"", key.name}
        and namespace in {"", key.namespace}
    )
    found = [to_json(stored) for _, stored in sorted(chosen)]
    if request.name and not found:
        raise InvalidInputError(f"{Key(kind.KIND, namespace, request.name)} not found")
    return Objects(tuple(found))


def validate_sources(
    sources: Iterable[tuple[str, str]],
    namespace: str = "default",
    directories: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Return all findings about manifests, without a store (``meshctl validate``).

    Manifests without any object are an error, as for kubectl: nobody checks nothing on purpose.
    ``directories``: the directories in which nodes read files that objects name; empty: unknown.
    """
    texts = tuple(sources)
    reading = read_sources(texts, namespace)
    if reading == Reading():
        return tuple(Finding(source, 1, _NO_OBJECTS) for source, _ in texts)
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
    """Return the kind with a name or short name (``vs``).

    Raises InvalidInputError if there is none.
    """
    kind = kinds.BY_NAME.get(name.lower())
    if kind is None:
        known = [found.PLURALS[0] for found in kinds.ALL]
        hint = nearest(name.lower(), known)
        raise InvalidInputError(f"unknown kind {name}{hint}")
    return kind


def _key(kind: type[Object], namespace: str, name: str) -> Key:
    return Key(kind.KIND, namespace if kind.NAMESPACED else "", name)


def _refused(store: Moment, reads: Iterable[Read], refusals: Refusals) -> tuple[Finding, ...]:
    """Return findings about applied objects that cannot be compiled.

    Faults of other objects are no reason to refuse these.
    """
    by_key = {read.object.key: read for read in reads}
    by_name = {str(key): read for key, read in by_key.items()}
    after = {**store.objects, **{key: read.object for key, read in by_key.items()}}
    found: list[Finding] = []
    for problem in refusals(after, by_key.keys()):
        name, _, reason = problem.partition(" is left out, because it ")
        if read := by_name.get(name):
            found.append(read.finding((), reason.rpartition(";")[0]))
    return tuple(found)


def _unread(
    store: Moment, reading: Reading, request: Apply
) -> tuple[tuple[Key, ...], list[Finding]]:
    """Return the stored objects that a deletion names by objects that cannot be read, and all
    findings: as warnings about these, since a name is enough to delete an object."""
    keys: dict[Key, None] = {}
    kept: list[Finding] = []
    others = {key for one in reading.unread if (key := _key_of_others(one.value))}
    for one in reading.findings:
        kind = next((known for known in kinds.ALL if one.kind == known.KIND), None)
        namespace = one.namespace or request.namespace
        is_elsewhere = request.only_namespace and namespace != request.namespace
        key = _key(kind, namespace, one.name) if kind and not is_elsewhere else None
        is_ours = key is not None and key not in others
        if request.delete and key and is_ours and store.has(key) and not store.file_of(key):
            keys[key] = None
            one = msgspec.structs.replace(one, severity="warning")  # noqa: PLW2901
        kept.append(one)
    return tuple(keys), kept


def _key_of_others(value: Json) -> Key | None:
    """Return the key of an object of an API group that is none of ours; None of any other. It may
    have the kind and the name of one of ours, as Services of Knative do."""
    group = text_in(mapping_in(value).get("apiVersion")).rpartition("/")[0]
    key = withheld.key_of(value)
    return key if key and kinds.find_kind(group, key.kind) is None else None


def _in_files(store: Moment, reads: Iterable[Read]) -> list[Finding]:
    return [
        read.finding((), f"is in the file {place}; change it there")
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


def _missing(store: Moment, reads: Iterable[Read]) -> list[Finding]:
    return [read.finding((), "not found") for read in reads if not store.has(read.object.key)]
