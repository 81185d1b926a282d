"""Resolves references of manifests: entries of ConfigMaps and Secrets, and the pod's own fields.
Pure."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

from meshd.api.base import Object
from meshd.api.decode import Path
from meshd.api.finding import Finding
from meshd.api.kubernetes.types import ConfigMap, Secret
from meshd.api.read import Read

Entries = Mapping[str, bytes]
_PLACES: Final[dict[type[Object], str]] = {
    ConfigMap: "these manifests; add the file that has it with -f",
    Secret: "these manifests or the mesh",
}


@dataclasses.dataclass(frozen=True, slots=True)
class DataObjects:
    """ConfigMaps and Secrets by kind, namespace and name."""

    entries: Mapping[tuple[type[Object], str, str], Entries] = dataclasses.field(
        default_factory=dict
    )

    @classmethod
    def of(cls, objects: Iterable[Object]) -> DataObjects:
        return cls(
            {
                (type(found), found.metadata.namespace, found.metadata.name): _entries(found)
                for found in objects
                if isinstance(found, ConfigMap | Secret)
            }
        )

    def over(self, other: DataObjects) -> DataObjects:
        """Return ``other``, with these in place of those of the same names."""
        return DataObjects({**other.entries, **self.entries})


def _entries(found: ConfigMap | Secret) -> Entries:
    if isinstance(found, Secret):
        plain, encoded = found.string_data, found.data
    else:
        plain, encoded = found.data, found.binary_data
    decoded = {key: _decoded(text) for key, text in encoded.items()}
    return decoded | {key: text.encode() for key, text in plain.items()}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()))
    except ValueError:
        return b""  # which the manifest's validation has refused


class Lookup:
    """Looks up what one pod refers to, and collects errors."""

    def __init__(self, read: Read, at: Path, data: DataObjects) -> None:
        """Take the pod; ``at`` is where the PodSpec is written."""
        self._read = read
        self._at = at
        self._data = data
        self.findings: list[Finding] = []
        self.notes: list[str] = []

    def error(self, path: Path, message: str) -> None:
        self.findings.append(self._read.finding((*self._at, *path), message))

    def left_out(self, path: Path, what: str) -> None:
        message = f"{what} is left out in the testbed"
        self.notes.append(str(self._read.finding((*self._at, *path), message)))

    def entries(
        self, path: Path, kind: type[Object], name: str, *, optional: bool
    ) -> Entries | None:
        """Return the entries of an object; a missing one is None, and an error unless it is
        optional."""
        namespace = self._read.object.metadata.namespace
        found = self._data.entries.get((kind, namespace, name))
        if found is None and not optional:
            self.error(path, f"no {kind.KIND} {namespace}/{name} in {_PLACES[kind]}")
        return found

    def entry(
        self, path: Path, kind: type[Object], name: str, key: str, *, optional: bool
    ) -> bytes | None:
        entries = self.entries(path, kind, name, optional=optional)
        if entries is None:
            return None
        if key not in entries and not optional:
            known = ", ".join(sorted(entries)) or "none"
            namespace = self._read.object.metadata.namespace
            self.error(path, f'{kind.KIND} {namespace}/{name} has no "{key}" (it has: {known})')
        return entries.get(key)

    def text(self, path: Path, value: bytes) -> str | None:
        """Return the value as that of a variable."""
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            self.error(
                path, "is not text, which a variable's value has to be; mount it as a volume"
            )
            return None
        return text
