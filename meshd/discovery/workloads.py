"""The record of the workloads on this node, on disk in the run directory.

It outlives the process that keeps it, and not a reboot: network namespaces do not either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

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
            locality=one.locality or locality,
            ready=one.ready and (uid not in enrolled or _is_captured(lives.get(uid))),
        )
        for uid, one in sorted(registered.items())
    )


def _is_captured(life: Life | None) -> bool:
    return life is not None and life.phase is Phase.CAPTURED


def load(path: Path) -> tuple[Record, tuple[str, ...]]:
    """The record, and what of it cannot be used, a line each; an empty one if there is no file.

    Raises InvalidInputError when it is not readable.
    """
    try:
        written = msgspec.json.decode(path.read_bytes(), type=_Written)
    except FileNotFoundError:
        return Record(), ()
    except (OSError, *UNDECODABLE) as error:
        raise InvalidInputError(
            f"{path}: not a record of workloads, so none is known: register them again ({error})"
        ) from None
    registered, bad = _each(written.registered, Workload)
    lives, worse = _each(written.lives, Life)
    problems = tuple(
        f"{path}: {uid!r} is left out: {why}; register it again" for uid, why in (*bad, *worse)
    )
    return Record(registered, lives), problems


def listed(record: bytes) -> tuple[tuple[Workload, ...], tuple[str, ...]]:
    """Workloads in a JSON list, and why others of it are left out. Raises what decoding raises
    (``errors.UNDECODABLE``) when it is no list."""
    written = {
        str(number): raw
        for number, raw in enumerate(msgspec.json.decode(record, type=list[msgspec.Raw]), 1)
    }
    found, problems = _each(written, Workload)
    return tuple(found.values()), tuple(f"number {number}: {why}" for number, why in problems)


def _each(
    written: Mapping[str, msgspec.Raw], expected: type[T]
) -> tuple[dict[str, T], list[tuple[str, str]]]:
    """One that cannot be used costs itself and no other."""
    found: dict[str, T] = {}
    problems: list[tuple[str, str]] = []
    for uid, raw in written.items():
        try:
            found[uid] = checked.decode(raw, expected)
        except InvalidInputError as error:
            problems.append((uid, str(error)))
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
