"""The objects that ``meshctl apply`` stored, on disk: one file, replaced as a whole.

A process that is killed at any moment leaves either the old content or the new one.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec

from meshd.api.base import Key, Object
from meshd.api.finding import Finding
from meshd.api.write import to_json
from meshd.base.aside import set_aside
from meshd.base.errors import UNDECODABLE, InvalidInputError, SystemRefusedError
from meshd.base.replacing import replace
from meshd.config import withheld
from meshd.config.admission import admit


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """The content of the file."""

    revision: int = 0
    objects: dict[Key, Object] = dataclasses.field(default_factory=dict)
    addresses: dict[str, str] = dataclasses.field(default_factory=dict)
    """Virtual addresses by host."""


class _Content(msgspec.Struct, frozen=True, kw_only=True):
    revision: int
    objects: list[Any]
    addresses: dict[str, str]


def save(path: Path, applied: Applied) -> None:
    """Raises SystemRefusedError; the file then has its old content."""
    content = _Content(
        revision=applied.revision,
        objects=[to_json(found) for _, found in sorted(applied.objects.items())],
        addresses=applied.addresses,
    )
    replace(path, msgspec.json.format(msgspec.json.encode(content)))


def load(path: Path) -> tuple[Applied, tuple[Finding, ...]]:
    """Return the content, and findings about what is unusable, which is set aside and never
    lost."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()  # of a process that was killed while it wrote
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Applied(), ()
    except OSError as error:
        raise SystemRefusedError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        content = msgspec.json.decode(raw, type=_Content)
    except UNDECODABLE as error:
        aside = set_aside(path)
        path.unlink()
        reason = (
            f"damaged ({error}); moved to {aside}: nothing of what was applied is in force, apply"
            " it again"
        )
        return Applied(), (Finding(str(path), 1, reason),)
    objects: dict[Key, Object] = {}
    findings: list[Finding] = []
    for value in content.objects:
        try:
            found = admit(value)
        except InvalidInputError as error:
            findings.append(Finding(str(path), 1, f"one object of it is not in force: {error}"))
            if closed := _in_place_of(value):
                objects[closed.key] = closed
        else:
            objects[found.key] = found
    if findings:
        findings.append(Finding(str(path), 1, f"a copy with all objects is {set_aside(path)}"))
    return Applied(content.revision, objects, content.addresses), tuple(findings)


def _in_place_of(value: Any) -> Object | None:
    try:
        named = msgspec.convert(value, _Named)
    except msgspec.ValidationError:
        return None
    return withheld.in_place_of(named.kind, named.metadata.namespace, named.metadata.name)


class _Name(msgspec.Struct):
    name: str
    namespace: str


class _Named(msgspec.Struct):
    """The part of an object that identifies it."""

    kind: str
    metadata: _Name
