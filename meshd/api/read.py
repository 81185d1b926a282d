"""Reads YAML text as typed objects that know where they were written.

This module owns what is common to all kinds: versions, metadata, namespaces, duplicates, ``List``,
and retired kinds. ``validate`` checks the fields of each kind. All errors of a text are found, not
only the first.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from meshd.api import kinds, retired
from meshd.api.aliases import renamed
from meshd.api.base import Key, Object, ObjectMeta
from meshd.api.damaged import readable_part
from meshd.api.decode import Mistake, Path, decode_all, nearest
from meshd.api.entries import Entry, entries_of
from meshd.api.finding import Finding
from meshd.api.kubernetes.types import Namespace, Service
from meshd.api.unread import MEANINGLESS, NOT_READ
from meshd.api.yaml import Document, ManifestError, read_documents
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import Json, JsonObject, text_in

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""RFC 1123, section 2.1; what Kubernetes asks of names."""
_TOP_LEVEL: Final = ("apiVersion", "kind", "metadata", "spec", "status")


class RejectedError(InvalidInputError):
    """The input has errors. ``str(error)`` has one line for each; ``findings`` has the parts."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = findings
        super().__init__("\n".join(str(finding) for finding in findings))


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """An object, and where it was written."""

    object: Object
    document: Document
    at: Path = ()
    """Where in the document it stands: not at its root when it came in a ``List``."""

    @property
    def place(self) -> str:
        return self.place_of(())

    def place_of(self, path: Path) -> str:
        """Return file and line of a field, or of the nearest value around it."""
        return f"{self.document.source}:{self.document.line_of((*self.at, *path))}"

    def finding(self, path: Path, message: str, severity: str = "error") -> Finding:
        """Return a finding about the field at ``path`` of the object."""
        return self.document.finding(self.at, path, message, self.object.key, severity)


@dataclasses.dataclass(frozen=True, slots=True)
class Unread:
    """The value of an object that cannot be taken, and where it was written."""

    value: Json
    """As it was written, with its namespace, and no nulls."""
    document: Document
    at: Path = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """The content of a text. Where ``errors`` is not empty, ``objects`` are those without any."""

    objects: tuple[Read, ...] = ()
    findings: tuple[Finding, ...] = ()
    damaged: tuple[tuple[Read, tuple[Path, ...]], ...] = ()
    """Objects without what cannot be read of them, and where that is."""
    unread: tuple[Unread, ...] = ()
    """All that is not among ``objects``, and that has a meaning."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")


def read_objects(text: str, source: str, default_namespace: str = "default") -> tuple[Read, ...]:
    """Return the objects of a text. Raises RejectedError with everything that is wrong with it."""
    reading = read_sources([(source, text)], default_namespace)
    if reading.errors:
        raise RejectedError(reading.errors)
    return reading.objects


def read_sources(
    sources: list[tuple[str, str]] | tuple[tuple[str, str], ...],
    default_namespace: str = "default",
    known: Mapping[Key, Object] | None = None,
) -> Reading:
    """Return all objects of several texts, each with its name for messages.

    ``known`` are objects that exist already: a retired kind may refer to them.
    """
    default_namespace = default_namespace or "default"
    findings: list[Finding] = []
    entries: list[Entry] = []
    for source, text in sources:
        try:
            entries += [
                entry for document in read_documents(text, source) for entry in entries_of(document)
            ]
        except ManifestError as error:
            findings.append(Finding(error.source, error.line, error.reason, field=error.field))
    objects: list[Read] = []
    old: list[Entry] = []
    damaged: list[tuple[Read, tuple[Path, ...]]] = []
    unread: list[Unread] = []
    for entry in entries:
        if entry.is_retired:
            old.append(entry)
            continue
        read, found = _typed(entry, default_namespace)
        if read is None and (part := _damaged(entry, default_namespace)):
            damaged.append(part)
        if read is None and not _meaningless(entry, default_namespace):
            unread.append(_unread(entry, default_namespace))
        findings += found
        objects += [read] if read else []
    services = _services(known or {}, objects)
    for entry in old:
        translated, found = _translated(entry, default_namespace, services)
        findings += found
        objects += translated
    findings += _duplicates(objects)
    return Reading(
        tuple(objects),
        tuple(sorted(findings, key=lambda found: (found.file, found.line))),
        tuple(damaged),
        tuple(unread),
    )


def _typed(entry: Entry, default_namespace: str) -> tuple[Read | None, list[Finding]]:
    if not isinstance(entry.value, dict):
        return None, [entry.finding((), "not an object: apiVersion, kind and metadata are missing")]
    problem = _meaningless(entry, default_namespace) or _unknown_kind(entry)
    if problem:
        return None, [problem]
    kind = kinds.find_kind(entry.api_version.rpartition("/")[0], entry.kind)
    if kind is None:
        raise AssertionError(entry.kind)  # _unknown_kind would have said so
    value = renamed(kind, _fields_without_nulls(entry.fields))
    stray = [] if not kind.GROUP.endswith("istio.io") else _stray(value)
    decoded, mistakes = decode_all(value, kind)
    mistakes = (*stray, *mistakes)
    if decoded is None or mistakes:
        return None, [entry.finding(mistake.path, mistake.reason) for mistake in mistakes]
    meta, findings = _named(entry, decoded, default_namespace)
    read = Read(msgspec.structs.replace(decoded, metadata=meta), entry.document, entry.at)
    failed = any(finding.severity == "error" for finding in findings)
    return (None if failed else read), findings


def _damaged(entry: Entry, default_namespace: str) -> tuple[Read, tuple[Path, ...]] | None:
    """Return the readable part of an object with errors; None if that is nothing, or all of it."""
    if not isinstance(entry.value, dict) or _meaningless(entry, default_namespace):
        return None
    kind = kinds.find_kind(entry.api_version.rpartition("/")[0], entry.kind)
    if kind is None or _unknown_kind(entry):
        return None
    part = readable_part(renamed(kind, _fields_without_nulls(entry.fields)), kind)
    if part is None or not part[1]:
        return None
    decoded, left_out = part
    meta, _ = _named(entry, decoded, default_namespace)
    read = Read(msgspec.structs.replace(decoded, metadata=meta), entry.document, entry.at)
    return read, left_out


def _unread(entry: Entry, default_namespace: str) -> Unread:
    """Return the value of an object of which nobody knows whether it can be read."""
    if not isinstance(entry.value, dict):
        return Unread(entry.value, entry.document, entry.at)
    kind = kinds.find_kind(entry.api_version.rpartition("/")[0], entry.kind)
    fields = _fields_without_nulls(entry.fields)
    value: JsonObject = dict(renamed(kind, fields) if kind else fields)
    meta = value.get("metadata")
    if (kind is None or kind.NAMESPACED) and isinstance(meta, dict):
        value["metadata"] = {"namespace": default_namespace, **meta}
    return Unread(value, entry.document, entry.at)


def _meaningless(entry: Entry, default_namespace: str) -> Finding | None:
    group = entry.api_version.rpartition("/")[0]
    if entry.kind not in MEANINGLESS or not (group.endswith(".k8s.io") or "." not in group):
        return None
    rough = entry.rough_meta()
    meta = msgspec.structs.replace(rough, namespace=rough.namespace or default_namespace)
    message = f"ignored: a {entry.kind} has no meaning here"
    return entry.finding((), message, meta, severity="warning")


def _unknown_kind(entry: Entry) -> Finding | None:
    for field, example in (("apiVersion", "v1"), ("kind", "Service")):
        if not text_in(entry.fields.get(field)):
            return entry.finding((field,), f"is required, a text such as {example}")
    group, _, version = entry.api_version.rpartition("/")
    if successor := retired.successor(group, version, entry.kind):
        return entry.finding(("apiVersion",), successor)
    kind = kinds.find_kind(group, entry.kind)
    if kind is None:
        return _no_such_kind(entry, group)
    if version not in kind.VERSIONS:
        message = f"unknown version {entry.api_version} of {entry.kind} (known: {_versions(kind)})"
        return entry.finding(("apiVersion",), message)
    return None


def _no_such_kind(entry: Entry, group: str) -> Finding:
    same = [_versions(known) for known in kinds.ALL if entry.kind == known.KIND]
    if same:
        message = f"{entry.api_version} has no {entry.kind} (write {same[0].rpartition(' ')[2]})"
        return entry.finding(("apiVersion",), message)
    if group.endswith("istio.io") and entry.kind in NOT_READ:
        message = f"this version of meshd does not read {entry.kind}; leave it out"
        return entry.finding(("kind",), message)
    names = sorted(known.KIND for known in kinds.ALL)
    hint = nearest(entry.kind, names)
    listed = "" if "known: " in hint else f"; known are {', '.join(names)}"
    message = f"unknown kind {entry.kind} of {entry.api_version}{hint}{listed}"
    return entry.finding(("kind",), message)


def _versions(kind: type[Object]) -> str:
    prefix = f"{kind.GROUP}/" if kind.GROUP else ""
    return ", ".join(prefix + version for version in kind.VERSIONS)


def _stray(value: JsonObject) -> list[Mistake]:
    """Return mistakes about fields at the top that Istio's kinds have only below ``spec``."""
    return [
        Mistake((key,), f"unknown field{nearest(key, _TOP_LEVEL)}")
        for key in value
        if key not in _TOP_LEVEL
    ]


def _fields_without_nulls(fields: JsonObject) -> JsonObject:
    return {key: _without_nulls(part) for key, part in fields.items() if part is not None}


def _without_nulls(value: Json) -> Json:
    """Return a copy without fields that are null: both APIs treat them as absent."""
    if isinstance(value, dict):
        return _fields_without_nulls(value)
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def _named(
    entry: Entry, decoded: Object, default_namespace: str
) -> tuple[ObjectMeta, list[Finding]]:
    """Return the metadata with its namespace filled in, and findings about the names."""
    meta = decoded.metadata
    findings: list[Finding] = []
    if not decoded.NAMESPACED:
        if meta.namespace:
            ignored = f"ignored: a {decoded.KIND} is in no namespace; remove it"
            findings.append(entry.finding(("metadata", "namespace"), ignored, severity="warning"))
        meta = msgspec.structs.replace(meta, namespace="")
    elif not meta.namespace:
        meta = msgspec.structs.replace(meta, namespace=default_namespace)
    if not meta.name:
        generated = "; generateName is not supported" if meta.generate_name else ""
        findings.append(entry.finding(("metadata", "name"), f"is required{generated}", meta))
    elif problem := _name_problem(decoded, meta.name):
        findings.append(entry.finding(("metadata", "name"), problem, meta))
    if meta.namespace and (problem := label_problem(meta.namespace)):
        findings.append(entry.finding(("metadata", "namespace"), problem, meta))
    return meta, findings


def _name_problem(decoded: Object, name: str) -> str:
    if isinstance(decoded, Namespace | Service):
        return label_problem(name)
    return subdomain_problem(name)


def label_problem(name: str) -> str:
    """Return why a name is not a DNS label (RFC 1123); empty if it is one."""
    if len(name) <= 63 and _LABEL.fullmatch(name):
        return ""
    return (
        f'"{name}" is not a DNS label: at most 63 of a-z, 0-9 and "-", '
        "beginning and ending with a letter or digit"
    )


def subdomain_problem(name: str) -> str:
    """Return why a name is not a DNS subdomain (RFC 1123); empty if it is one."""
    if len(name) <= 253 and all(_LABEL.fullmatch(part) for part in name.split(".")):
        return ""
    return (
        f'"{name}" is not a DNS name: at most 253 of a-z, 0-9, "-" and ".", '
        "each part beginning and ending with a letter or digit"
    )


def _translated(
    entry: Entry, default_namespace: str, services: Mapping[Key, Service]
) -> tuple[list[Read], list[Finding]]:
    """Return PeerAuthentications for a retired authentication policy."""
    meta, mistakes = decode_all(_without_nulls(entry.fields.get("metadata") or {}), ObjectMeta)
    if meta is None:
        return [], [entry.finding(("metadata", *m.path), m.reason) for m in mistakes]
    namespace = meta.namespace or default_namespace
    translation = retired.translate(entry.kind, meta, namespace, entry.fields.get("spec"), services)
    findings = [entry.finding(path, reason) for path, reason in translation.errors]
    if findings:
        return [], findings
    names = ", ".join(str(policy.key) for policy in translation.policies)
    warning = f"retired: read as {names} of security.istio.io/v1; write that instead"
    findings.append(entry.finding(("apiVersion",), warning, severity="warning"))
    return [Read(policy, entry.document, entry.at) for policy in translation.policies], findings


def _services(known: Mapping[Key, Object], objects: list[Read]) -> dict[Key, Service]:
    everything = [*known.values(), *(read.object for read in objects)]
    return {found.key: found for found in everything if isinstance(found, Service)}


def _duplicates(objects: list[Read]) -> list[Finding]:
    first: dict[Key, Read] = {}
    findings: list[Finding] = []
    for read in objects:
        before = first.setdefault(read.object.key, read)
        if before is not read:
            message = f"is written twice, first at {before.place}; remove one"
            findings.append(read.finding((), message))
    return findings
