"""Records what the mesh role is putting in force, so that the next one knows what it died of.

Where the configuration comes from a server, its records are noted where they come in.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from meshd.api.base import Key, Object
from meshd.api.write import to_json
from meshd.base.attempts import Attempts, Begun
from meshd.base.json_values import JsonObject
from meshd.base.sequence_difference import SequenceDifference
from meshd.base.suspects import LEFT_OUT_FOR, Content, keeps_content
from meshd.config.store import Store
from meshd.config.withheld import Replacement
from meshd.model.workload import Workload
from meshd.node import stages
from meshd.node.stages import Progress, Stages, Step

T = TypeVar("T")
_log = logging.getLogger(__name__)
_WORKLOAD: Final = "workload "
_CLOSED: Final = "replacement of "
_NOTHING: Final = (
    "no configuration is in force, because meshd died at each start, whatever was left out; it is"
    " tried again when the configuration changes, or after an hour"
)
_PART: Final = 1000
"""Records that are noted at once, unless that makes more than ``_PARTS``."""
_PARTS: Final = 20
_PROVEN: Final = 1.0
"""Seconds after which what was put in force has killed nobody."""


class Elsewhere(msgspec.Struct, frozen=True):
    """Workloads of other nodes that are to be put in force."""

    workloads: tuple[Workload, ...] = ()
    begun: frozenset[Begun] = frozenset()
    """The records of those that are new or have changed. They are in hand until ``heard``."""


class InWork:
    """The record. ``own``: the configuration was applied here."""

    def __init__(self, path: Path, store: Store, *, own: bool = True) -> None:
        self.attempts = Attempts(path)
        self._store = store
        self._own = own
        self._starting = True
        self._stages = Stages()
        self._gives_up = self.attempts.gives_up
        self._kept: set[Key] | None = None
        """The objects whose records were kept last."""
        self._coming_ones: dict[Key, Object] = {}
        """Objects that were noted and are not in force yet."""
        self._lock = threading.Lock()
        """The lock of those, and of ``attempts.in_hand``, which is held for a moment only."""
        if self._gives_up:
            store.withhold_all(_NOTHING)
        else:
            self.attempts.start()
        store.withhold(self._why if own else None, self._why_closed)
        if own:
            self._begin_objects(store.objects, starting=True)
        self._before = store.objects
        self._closed: Mapping[Key, Object] = {}
        self._begin_closed()
        store.subscribe(self._changed)
        if own:
            self._keep_known()
            store.announce(self._coming)

    @property
    def problems(self) -> tuple[str, ...]:
        return self.attempts.problems

    # ---- how far records are

    def step(self, step: Step) -> None:
        """Note a step of publishing: a process that dies in a job may have died of its records."""
        self._stages = stages.stepped(self._stages, step, self.attempts.working)
        self._rest()

    def settled(self, progress: Progress) -> None:
        """Note that all other processes have been told the result."""
        if self._gives_up and self._starting:
            asyncio.get_running_loop().call_later(LEFT_OUT_FOR, self._start_anew)
        self._starting = False
        working = self.attempts.working
        self._stages, done = stages.settled(self._stages, progress, working)
        self._rest()
        if done:
            asyncio.get_running_loop().call_later(_PROVEN, self._done, done)

    def _rest(self) -> None:
        self.attempts.rest(self.attempts.newest(self._stages.idle))

    def _done(self, records: Collection[Begun]) -> None:
        self.attempts.proven(records)
        if self.attempts.is_narrowing:
            self.attempts.narrow()
            _log.warning(
                "this role starts anew to find out which of the records that are set aside is at"
                " fault",
                extra={"MESHD_EVENT": "left-out"},
            )
            os.kill(os.getpid(), signal.SIGTERM)

    def ended(self) -> None:
        """Note that the role ends as it was told to."""
        self.attempts.end()

    # ---- objects

    def _why(self, found: Object) -> str:
        if not self.attempts.leaves_out or not self.attempts.knows(name := str(found.key)):
            return ""
        return self.attempts.why_left_out(name, _fingerprint(to_json(found)))

    def _coming(self, objects: Mapping[Key, Object]) -> None:
        """Note objects that are in force soon, in whichever thread: of a large mesh, that takes
        long."""
        if not self._gives_up:
            for items in _parts(tuple(objects.items())):
                part = dict(items)
                self._begin_objects(part, noted=functools.partial(self._hold, part))

    def _hold(self, objects: Mapping[Key, Object], begun: frozenset[Begun]) -> None:
        """Take note that objects have been noted, and cannot be put in force yet."""
        noted = {name for name, _ in begun}
        coming = {key: one for key, one in objects.items() if str(key) in noted}
        with self._lock:
            self._coming_ones |= coming
            self.attempts.in_hand |= begun

    def _arrived(self, news: Mapping[Key, Object]) -> dict[Key, Object]:
        """Return those of the objects, which are in force now, that were not noted before."""
        with self._lock:
            coming = self._coming_ones
            taken = self._store.taken(coming)
            self._coming_ones = {key: one for key, one in coming.items() if key not in taken}
            left = set(map(str, self._coming_ones))
            self.attempts.in_hand = frozenset(
                one
                for one in self.attempts.in_hand
                if one[0] in left or one[0].startswith(_WORKLOAD)
            )
        return {key: one for key, one in news.items() if key not in taken or coming[key] is not one}

    def _changed(self) -> None:
        if self._gives_up:
            if not self._starting:
                self._start_anew()
            return
        before, self._before = self._before, self._store.objects
        if self._own:
            self._keep_known()
            self._begin_objects(self._arrived(_news(before, self._before)))
        self._begin_closed()

    def _keep_known(self) -> None:
        """Forget records of objects that are gone."""
        kept = {*self._store.known, *self._store.closed_keys, *self._coming_ones}
        if self._kept is None:  # they may have gone before this process began
            names = frozenset(map(str, kept))
            self.attempts.keep_only(
                lambda name: name.startswith(_WORKLOAD) or name.removeprefix(_CLOSED) in names
            )
        elif gone := frozenset(map(str, self._kept - kept)):
            self.attempts.keep_only(lambda name: name.removeprefix(_CLOSED) not in gone)
        self._kept = kept

    def _begin_objects(
        self,
        objects: Mapping[Key, Object],
        *,
        starting: bool = False,
        noted: Callable[[frozenset[Begun]], None] = lambda _: None,
    ) -> None:
        """Note objects. ``starting``: this process has read them at its start; ``noted``: see
        ``Attempts.begin``."""
        records: dict[str, tuple[str, Content]] = {}
        for key, one in objects.items():
            if isinstance(one, Replacement) or (starting and not self.attempts.suspects(str(key))):
                continue
            value = to_json(one)
            fingerprint = _fingerprint(value)
            if not starting or self.attempts.suspects(str(key), fingerprint):
                records[str(key)] = fingerprint, value
        self.attempts.begin(records, noted=noted)

    def _start_anew(self) -> None:
        """End this process, so that the next one tries all of the configuration again."""
        self.attempts.start_anew()
        end = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
        asyncio.get_running_loop().call_later(_PROVEN, end)

    # ---- replacements of objects that are not in force

    def _why_closed(self, closed: Object) -> str:
        name = _closed_name(closed)
        if self.attempts.is_bare(str(closed.key)):
            return "processes of meshd died while they took up such replacements"
        if not self.attempts.knows(name):
            return ""
        return self.attempts.why_left_out(name, _fingerprint(to_json(closed)))

    def _begin_closed(self) -> None:
        """Note the replacements of objects, of which processes may die as of the objects.

        The process before had the replacements that this one finds in force, except those of
        objects that are left out from now on.
        """
        before, self._closed = self._closed, {one.key: one for one in self._store.standing}
        new = {str(key) for key, one in self._closed.items() if before.get(key) != one}
        if self._starting:
            new = {
                name
                for name in new
                if name in self.attempts.newly_left_out or self.attempts.suspects(_CLOSED + name)
            }
        values = {_closed_name(one): to_json(one) for one in self._closed.values()}
        self.attempts.begin(
            {
                name: (_fingerprint(value), value)
                for name, value in values.items()
                if name.removeprefix(_CLOSED) in new
            }
        )

    # ---- workloads of other nodes

    def noted(
        self, told: Sequence[Workload], before: Sequence[Workload], *, starting: bool = False
    ) -> Elsewhere:
        """Note the workloads to put in force, in whichever thread, and return them for ``heard``.

        ``starting``: they are from this node's own disk.
        """
        if self._gives_up:
            return Elsewhere()
        if not self._own:
            return Elsewhere(tuple(told))
        kept = tuple(told)
        if self.attempts.leaves_out:
            kept = tuple(one for one in told if not self.attempts.why_left_out(_name(one), ""))
        if starting:
            news = [one for one in kept if self.attempts.suspects(_name(one))]
        else:
            news = new_among(kept, before)
        keeps = keeps_content(len(news))
        begun = [
            self.attempts.begin(
                {_name(one): ("", msgspec.to_builtins(one) if keeps else None) for one in part},
                noted=self._take_in_hand,
            )
            for part in _parts(tuple(news))
        ]
        return Elsewhere(kept, frozenset().union(*begun))

    def _take_in_hand(self, begun: frozenset[Begun]) -> None:
        with self._lock:
            self.attempts.in_hand |= begun

    def heard(self, noted: Elsewhere) -> tuple[Workload, ...]:
        """Return the workloads that were noted, which are put in force now, or never are."""
        with self._lock:
            self.attempts.in_hand -= noted.begun
        return noted.workloads


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield records in parts, so that others who note something do not wait for all of them."""
    size = max(_PART, len(items) // _PARTS)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _news(before: Mapping[Key, Object], after: Mapping[Key, Object]) -> dict[Key, Object]:
    """Return the objects that are new or have changed."""
    old, new = tuple(before.values()), tuple(after.values())
    difference = SequenceDifference.between(old, new)
    known = {id(one) for one in difference.of_old(old)}
    return {one.key: one for one in difference.of_new(new) if id(one) not in known}


def _closed_name(closed: Object) -> str:
    return f"{_CLOSED}{closed.key}"


def new_among(told: Sequence[Workload], before: Sequence[Workload]) -> list[Workload]:
    """Return the workloads that are new or have changed. Pure.

    A report of a large mesh differs from the one before in few places: equal parts at the
    beginning and at the end are skipped.
    """
    given, known = tuple(told), tuple(before)
    difference = SequenceDifference.between(known, given)
    old = {_name(one): one for one in difference.of_old(known)}
    return [one for one in difference.of_new(given) if old.get(_name(one)) != one]


def _name(workload: Workload) -> str:
    """Return a name of bounded length: a hostile node may report anything."""
    return f"{_WORKLOAD}{workload.node}/{workload.uid}"


def _fingerprint(value: JsonObject) -> str:
    return hashlib.blake2b(msgspec.json.encode(value), digest_size=8).hexdigest()
