"""The record of the workloads on this node, on disk in the run directory.

It outlives the process that keeps it, and not a reboot: network namespaces do not either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from meshd.aside import set_aside
from meshd.discovery import remains
from meshd.discovery.enrolment import Life, Phase
from meshd.errors import UNDECODABLE, InvalidInputError, SystemRefusedError
from meshd.model import checked
from meshd.model.workload import Workload

T = TypeVar("T")


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file, before each of its parts is looked at."""

    registered: dict[str, msgspec.Raw] = {}
    lives: dict[str, msgspec.Raw] = {}


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is registered, and how far each is. Either may know a uid that the other does not."""

    registered: dict[str, Workload] = {}
    lives: dict[str, Life] = {}


def elsewhere(workload: Workload) -> Workload:
    """Of another node: named so that no workload of this one can have its uid."""
    return msgspec.structs.replace(workload, uid=f"{workload.node}/{workload.uid}")


def roster(
    node: str,
    registered: Mapping[str, Workload],
    lives: Mapping[str, Life],
    enrolled: Collection[str],
    locality: str = "",
) -> tuple[Workload, ...]:
    """A node's workloads as the others are to know them, always in the same order.

    ``locality`` is the node's.

    What is enrolled is ready for mutual TLS, which others then speak to it, only when its traffic
    is captured.
    """
    return tuple(
        msgspec.structs.replace(
            one,
            node=node,
            netns="",
            netns_cookie=0,
            locality=one.locality or locality,
            ready=one.ready and (uid not in enrolled or _is_captured(lives.get(uid))),
        )
        for uid, one in sorted(registered.items())
    )


def _is_captured(life: Life | None) -> bool:
    return life is not None and life.phase is Phase.CAPTURED


class Loaded(msgspec.Struct, frozen=True):
    """What a file holds."""

    record: Record = Record()
    unusable: Mapping[str, Workload] = {}
    """By uid, whatever of it cannot be used: as much as is needed to keep its traffic captured."""
    problems: Mapping[str, str] = {}
    """Why, by uid."""
    lost: str = ""
    """Why nothing of the file can be used; empty when it can, or there is none."""


def load(path: Path, *, keep: bool = False) -> Loaded:
    """One entry that cannot be used costs itself and no other. ``keep``: what cannot be used is
    kept in a copy, for the file is going to be written anew."""
    try:
        raw = path.read_bytes()
        written = msgspec.json.decode(raw, type=_Written)
    except FileNotFoundError:
        return Loaded()
    except (OSError, *UNDECODABLE) as error:
        lost = f"{path}: not a record of workloads ({error}){_kept(path, keep=keep)}"
        return Loaded(lost=lost)
    registered, bad = _each(written.registered, Workload, lambda one: one.uid)
    lives, worse = _each(written.lives, Life, lambda one: one.workload.uid)
    problems = {**worse, **bad}
    note = _kept(path, keep=keep and bool(problems))
    entries = {**written.lives, **written.registered}
    return Loaded(
        Record(registered, lives),
        {uid: found for uid in problems if (found := remains.of(uid, entries[uid]))},
        {uid: f"{path}: {uid!r} cannot be used: {why}{note}" for uid, why in problems.items()},
    )


def _kept(path: Path, *, keep: bool) -> str:
    if not keep:
        return ""
    try:
        return f"; a copy is {set_aside(path)}"
    except OSError:
        return ""


def listed(record: bytes) -> tuple[tuple[Workload, ...], tuple[str, ...]]:
    """Workloads in a JSON list, and why others of it are left out. Raises what decoding raises
    (``errors.UNDECODABLE``) when it is no list."""
    written = {
        str(number): raw
        for number, raw in enumerate(msgspec.json.decode(record, type=list[msgspec.Raw]), 1)
    }
    found, problems = _each(written, Workload)
    return tuple(found.values()), tuple(f"number {key}: {why}" for key, why in problems.items())


def _each(
    written: Mapping[str, msgspec.Raw],
    expected: type[T],
    uid_of: Callable[[T], str] | None = None,
) -> tuple[dict[str, T], dict[str, str]]:
    """Those that can be used, and why the others cannot, by key. ``uid_of``: what is the key."""
    found: dict[str, T] = {}
    problems: dict[str, str] = {}
    for key, raw in written.items():
        try:
            one = checked.decode(raw, expected)
        except InvalidInputError as error:
            problems[key] = str(error)
            continue
        if uid_of and uid_of(one) != key:
            problems[key] = f"it is the record of {uid_of(one)!r}"
        else:
            found[key] = one
    return found, problems


def save(path: Path, record: Record) -> None:
    """Replaces the file at once or not at all. Raises SystemRefusedError."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(record))
        new.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise SystemRefusedError(f"{path}: cannot be written: {error.strerror}") from None
