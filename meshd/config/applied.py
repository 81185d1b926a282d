"""The objects that ``meshctl apply`` stored, on disk: one file, replaced as a whole.

A process that is killed at any moment leaves either the old content or the new one.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd.api.base import Key, Object
from meshd.api.finding import Finding
from meshd.api.write import to_json
from meshd.base.aside import set_aside
from meshd.base.disk import replace
from meshd.base.errors import UNDECODABLE, InvalidInputError, SystemRefusedError
from meshd.base.json_values import Json
from meshd.config.admission import admit
from meshd.config.unusable import Unusable

LOST: Final = (
    "For as long as this is so, workloads take mutual TLS only (STRICT), and reach nothing but"
    " services of the mesh"
)
UNTIL_REPLACED: Final = (
    "put a good file back, or apply again what was applied, with a PeerAuthentication for the whole"
    " mesh"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Applied:
    """The content of the file."""

    revision: int = 0
    objects: dict[Key, Object] = dataclasses.field(default_factory=dict)
    addresses: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Virtual addresses by host."""
    unusable: dict[Key, Unusable] = dataclasses.field(default_factory=dict)
    """What this version cannot use. It stays in the file, for another version or until it is
    replaced; what ``objects`` has of the same key is in force in its place."""
    lost: str = ""
    """The path of a copy with content that could not be read. Empty: nothing is lost."""

    def copy(self) -> Applied:
        """Return the same content with mappings of its own."""
        return dataclasses.replace(self, objects={**self.objects}, unusable={**self.unusable})


class _Content(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content but for the objects."""

    revision: int
    addresses: dict[str, str]
    """Joined by commas; versions that know one address take several for none."""
    lost: str = ""


class _WithObjects(_Content, frozen=True, kw_only=True):
    objects: list[Json]


class AppliedFile:
    """The file, whose parts several threads replace, one thread at a time.

    When one part is replaced, the other is written as it was written last.
    """

    def __init__(self, path: Path) -> None:
        """Raises SystemRefusedError."""
        self._path = path
        self._lock = threading.Lock()
        self.content, self.findings = load(path)
        self._is_behind = False
        """The addresses are not on disk, which has refused them."""

    def replace(self, after: Applied) -> Applied:
        """Replace all but the addresses; return the new content.

        Raises SystemRefusedError; then the file is as it was.
        """
        with self._lock:
            new = dataclasses.replace(after, addresses=self.content.addresses)
            save(self._path, new)
            self.content, self._is_behind = new, False
            return new

    def replace_addresses(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """Replace the addresses. Raises SystemRefusedError; then the next write has them."""
        with self._lock:
            if self.content.addresses == addresses and not self._is_behind:
                return
            self.content = dataclasses.replace(self.content, addresses=dict(addresses))
            self._is_behind = True
            save(self._path, self.content)
            self._is_behind = False


def save(path: Path, applied: Applied) -> None:
    """Raises SystemRefusedError; the file then has its old content."""
    replace(path, b"".join(_lines(applied)))


def _lines(applied: Applied) -> Iterator[bytes]:
    """Yield the content object by object, since no other thread runs while one is encoded."""
    head = _Content(
        revision=applied.revision,
        addresses={host: ",".join(each) for host, each in applied.addresses.items()},
        lost=applied.lost,
    )
    fields = msgspec.json.format(msgspec.json.encode(head))
    yield fields.removesuffix(b"}").rstrip() + b',\n  "objects": ['
    separator = b"\n"
    for value in _values(applied):
        yield separator + msgspec.json.format(msgspec.json.encode(value))
        separator = b",\n"
    yield b"\n  ]\n}"


def _values(applied: Applied) -> Iterator[Json]:
    for key, found in sorted(applied.objects.items()):
        if key not in applied.unusable:
            yield to_json(found)
    for _, one in sorted(applied.unusable.items()):
        yield one.value


def load(path: Path) -> tuple[Applied, tuple[Finding, ...]]:
    """Return the content, and findings about what is unusable, of which a copy is kept. Raises
    SystemRefusedError.
    """
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()  # of a process that was killed while it wrote
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Applied(), ()
    except OSError as error:
        raise SystemRefusedError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        content = msgspec.json.decode(raw, type=_WithObjects)
    except UNDECODABLE as error:
        after = Applied(lost=_copy_of(path))
        save(path, after)
        reason = (
            f"damaged ({error}); moved to {after.lost}: nothing of what was applied is in force."
            f" {LOST}; {UNTIL_REPLACED}"
        )
        return after, (Finding(str(path), 1, reason),)
    objects: dict[Key, Object] = {}
    unusable: dict[Key, Unusable] = {}
    findings: list[Finding] = []
    lost = content.lost
    for value in content.objects:
        try:
            found = admit(value)
        except InvalidInputError as error:
            one = Unusable(value, str(error))
            if (key := one.key) is None or key in objects or one.is_lost:
                lost = lost or _copy_of(path)
                reason = f"one object of it is not in force: {error}"
                findings.append(Finding(str(path), 1, reason))
                continue
            unusable[key] = one
            if policy := one.policy:
                objects[key] = policy
        else:
            objects[found.key] = found
            unusable.pop(found.key, None)
    if findings:
        reason = f"a copy with all objects is {lost}. {LOST}; {UNTIL_REPLACED}"
        findings.append(Finding(str(path), 1, reason))
    addresses = {host: tuple(text.split(",")) for host, text in content.addresses.items()}
    return Applied(content.revision, objects, addresses, unusable, lost), tuple(findings)


def _copy_of(path: Path) -> str:
    """Raises SystemRefusedError."""
    try:
        return str(set_aside(path))
    except OSError as error:
        raise SystemRefusedError(f"{path}: damaged, and no copy can be kept: {error}") from None
