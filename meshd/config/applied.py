"""The objects that ``meshctl apply`` stored, on disk: one file, to which changes are appended.

A process that is killed at any moment leaves either the old content or the new one. The file has
no changes after the role has ended as it was told to, so that former versions can read it.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from meshd.api.base import Key, Object
from meshd.api.finding import Finding
from meshd.api.write import to_json
from meshd.base import change_log
from meshd.base.aside import set_aside
from meshd.base.change_log import ChangeLog
from meshd.base.disk import replace
from meshd.base.errors import UNDECODABLE, InvalidInputError, SystemRefusedError
from meshd.base.json_values import Json
from meshd.base.sequence_difference import SequenceDifference
from meshd.config.admission import admit
from meshd.config.unusable import Unusable
from meshd.config.withheld import key_of

Name = TypeVar("Name")

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


class _Change(_Content, frozen=True, kw_only=True, omit_defaults=True):
    """A change of the content; ``addresses`` are those that are new, or empty texts."""

    put: list[Json] = []
    deleted: list[Key] = []


class AppliedFile:
    """The file, whose parts several threads replace, one thread at a time.

    When one part is replaced, the other is written as it was written last.
    """

    def __init__(self, path: Path) -> None:
        """Raises SystemRefusedError."""
        self._lock = threading.Lock()
        self._log = ChangeLog(path)
        self.content, self.findings = load(path)
        self._written = self.content
        """The content that is on disk."""

    def replace(self, after: Applied) -> Applied:
        """Replace all but the addresses; return the new content.

        Raises SystemRefusedError; then the file is as it was.
        """
        with self._lock:
            new = dataclasses.replace(after, addresses=self.content.addresses)
            self._write(new)
            self.content = new
            return new

    def replace_addresses(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """Replace the addresses. Raises SystemRefusedError; then the next write has them."""
        with self._lock:
            if self.content.addresses != addresses:
                self.content = dataclasses.replace(self.content, addresses=dict(addresses))
            if self._written.addresses is not self.content.addresses:
                self._write(self.content)

    def settle(self) -> None:
        """Write the whole in place of its changes. Raises SystemRefusedError; then nothing is
        lost."""
        with self._lock:
            self._log.settle(functools.partial(_whole, self._written))

    def _write(self, new: Applied) -> None:
        change = msgspec.json.encode(_change(self._written, new))
        self._log.append(change, functools.partial(_whole, new))
        self._written = new


def save(path: Path, applied: Applied) -> None:
    """Raises SystemRefusedError; the file then has its old content."""
    replace(path, _whole(applied))


def _whole(applied: Applied) -> bytes:
    return b"".join(_lines(applied))


def _change(before: Applied, after: Applied) -> _Change:
    """Return what has changed. Objects count as the same only if they are the very same."""
    objects = (before.objects, after.objects), (before.unusable, after.unusable)
    changed = {key for old, new in objects for key in _differing(old, new)}
    deleted = sorted(changed - after.objects.keys() - after.unusable.keys())
    hosts = _differing(before.addresses, after.addresses)
    return _Change(
        revision=after.revision,
        addresses={host: ",".join(after.addresses.get(host, ())) for host in hosts},
        lost=after.lost,
        put=[_value(after, key) for key in sorted(changed.difference(deleted))],
        deleted=deleted,
    )


def _differing(old: Mapping[Name, object], new: Mapping[Name, object]) -> set[Name]:
    before, after = tuple(old.items()), tuple(new.items())
    part = SequenceDifference.between(before, after)
    come = {name for name, one in part.of_new(after) if old.get(name) is not one}
    return come | {name for name, _ in part.of_old(before) if name not in new}


def _value(applied: Applied, key: Key) -> Json:
    unusable = applied.unusable.get(key)
    return unusable.value if unusable else to_json(applied.objects[key])


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
    for key in sorted(applied.objects.keys() - applied.unusable.keys()):
        yield _value(applied, key)
    for key in sorted(applied.unusable):
        yield _value(applied, key)


def _parsed(raw: bytes) -> _WithObjects:
    """Return the content of the file after its changes. Raises InvalidInputError, or what msgspec
    does."""
    found = change_log.parse(raw)
    whole = msgspec.json.decode(found.whole, type=_WithObjects)
    changes = [msgspec.json.decode(line, type=_Change) for line in found.changes]
    if not changes:
        return whole
    put: dict[Key | None, Json] = {}
    changed: set[Key | None] = set()
    for change in changes:
        for key in change.deleted:
            put.pop(key, None)
        put |= {key_of(value): value for value in change.put}
        changed.update(change.deleted, put)
    addresses = ChainMap(*(change.addresses for change in reversed(changes)), whole.addresses)
    return _WithObjects(
        revision=changes[-1].revision,
        addresses={host: text for host, text in addresses.items() if text},
        lost=changes[-1].lost,
        objects=[*(one for one in whole.objects if key_of(one) not in changed), *put.values()],
    )


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
        content = _parsed(raw)
    except (InvalidInputError, *UNDECODABLE) as error:
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
