"""The record of the workloads on this node, on disk in the run directory.

It outlives the process that keeps it, but not a reboot: neither do network namespaces.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from meshd.api import checked
from meshd.base.aside import set_aside
from meshd.base.disk import replace
from meshd.base.errors import UNDECODABLE, InvalidInputError
from meshd.base.sequence_difference import SequenceDifference
from meshd.model import hbone
from meshd.model.workload import Workload
from meshd.workloads import remains
from meshd.workloads.lifecycle import Life, Phase

T = TypeVar("T")


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file, before its parts are decoded."""

    registered: dict[str, msgspec.Raw] = {}
    lives: dict[str, msgspec.Raw] = {}


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The registered workloads, and how far each is. Either may have a uid that the other lacks."""

    registered: dict[str, Workload] = {}
    lives: dict[str, Life] = {}


def elsewhere(workload: Workload) -> Workload:
    """Return a workload of another node, with a uid that no workload of this node can have."""
    # A new object would have each of its addresses validated again.
    renamed = copy.copy(workload)
    msgspec.structs.force_setattr(renamed, "uid", _uid_elsewhere(workload))
    return renamed


def _uid_elsewhere(workload: Workload) -> str:
    return f"{workload.node}/{workload.uid}"


class Renamed:
    """Renames each workload of other nodes once: one that has not changed stays the same object."""

    def __init__(self) -> None:
        self._told: tuple[Workload, ...] = ()
        self._renamed: tuple[Workload, ...] = ()
        self._uids: set[str] = set()

    def all(self, told: Iterable[Workload]) -> tuple[Workload, ...]:
        """Return the workloads with uids that no workload of this node has; of several that would
        have one uid, the last."""
        given = tuple(told)
        difference = SequenceDifference.between(self._told, given)
        before = zip(difference.of_old(self._told), difference.of_old(self._renamed), strict=True)
        known = {renamed.uid: (one, renamed) for one, renamed in before}
        new = difference.of_new(given)
        come = {_uid_elsewhere(one): one for one in new}
        is_taken = any(uid in self._uids and uid not in known for uid in come)
        if is_taken or len(come) < len(new):
            return Renamed().all({_uid_elsewhere(one): one for one in given}.values())
        # Operators on a set and a view of keys would copy the set.
        self._uids.difference_update(known)
        self._uids.update(come)
        made = (_renamed(one, known.get(uid)) for uid, one in come.items())
        self._told, self._renamed = given, difference.replaced(self._renamed, made)
        return self._renamed


def _renamed(one: Workload, known: tuple[Workload, Workload] | None) -> Workload:
    return known[1] if known is not None and known[0] == one else elsewhere(one)


def roster(
    node: str,
    registered: Mapping[str, Workload],
    lives: Mapping[str, Life],
    enrolled: Collection[str],
    locality: str = "",
    *,
    tunneled: Container[str] = (),
) -> tuple[Workload, ...]:
    """Return a node's workloads as other nodes are told of them, always in the same order.

    ``locality`` is the node's; ``tunneled``: uids of those that are reached by tunnels. An enrolled
    workload is ready for mutual TLS, which others then speak to it, only when its traffic is
    captured.
    """
    return tuple(
        msgspec.structs.replace(
            one,
            node=node,
            netns="",
            netns_cookie=0,
            locality=one.locality or locality,
            protocols=(hbone.PROTOCOL,) if uid in tunneled else (),
            ready=one.ready and (uid not in enrolled or _is_captured(lives.get(uid))),
        )
        for uid, one in sorted(registered.items())
    )


def _is_captured(life: Life | None) -> bool:
    return life is not None and life.phase is Phase.CAPTURED


class Loaded(msgspec.Struct, frozen=True):
    """The content of a file."""

    record: Record = Record()
    unusable: Mapping[str, Workload] = {}
    """By uid, whatever of it cannot be used: as much as is needed to keep its traffic captured."""
    problems: Mapping[str, str] = {}
    """Why, by uid."""
    lost: str = ""
    """Why nothing of the file can be used; empty when it can, or there is none."""


def load(path: Path, *, keep: bool = False) -> Loaded:
    """Load a record; an unusable entry affects no other.

    ``keep``: what is unusable is kept in a copy, since the file is going to be rewritten.
    """
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
    """Return the workloads in a JSON list, and why others in it are left out.

    Raises what decoding raises (``errors.UNDECODABLE``) if it is not a list.
    """
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
    """Return usable items, and why the others are not, by key; ``uid_of`` returns the key."""
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


def save(path: Path, record: Record, *, durable: bool = False) -> None:
    """Replace the file at once or not at all; ``durable``: a power cut does not undo it. Raises
    SystemRefusedError."""
    replace(path, msgspec.json.encode(record), durable=durable)
