"""Records during which a process died, found by what it worked on when it ended unexpectedly.

A record is noted on disk before it is put in force, and struck off once that has gone well. The
next start finds what was left. A record that was there at three deaths in a row is left out, and
reported, until it changes or an hour has passed. How the one at fault is found among several says
``suspects``.

A process that dies at its start while no record is noted may have died of any record: the next
process notes all of them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from meshd.base import change_log, journal, kept_file, suspects
from meshd.base.change_log import ChangeLog
from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.base.suspects import START, Aside, Content, State, Suspect

_log = logging.getLogger(__name__)


Begun: TypeAlias = tuple[str, int]
"""The name of a record, and its turn: which of all beginnings this was."""


_LAST: Final = 24
"""Successive deaths at the start after which nothing is put in force."""
_suspects: Final = msgspec.json.Decoder(dict[str, Suspect])
_change: Final = msgspec.json.Decoder(dict[str, Suspect | None])
"""Of a change; None: a record was struck off."""
_FORGOTTEN: Final = "records that processes died of are tried again"


class Attempts:
    """The state on disk, which any thread may change. If it cannot be written, nothing is left
    out."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        self.in_hand: frozenset[Begun] = frozenset()
        """Records that are being read, and cannot be put in force yet."""
        self._log = ChangeLog(path, durable=False)
        self._written: State = {}
        """The state that is on disk."""
        before = kept_file.load(path, parse, _FORGOTTEN) or {}
        self._state: State = suspects.died(before, clock())
        self.newly_left_out: Final = suspects.at_fault(self._state) - suspects.at_fault(before)
        """The names of records that are left out from this start on."""
        self._suspects_all = suspects.died_of_nothing_known(before)
        self._turns: dict[str, int] = {}
        self._count = itertools.count(1)
        self._former: dict[str, list[tuple[int, Suspect]]] = {}
        """What was noted in place of tentative records, with its turns, the oldest first."""
        self._working: tuple[State, frozenset[Begun]] = {}, frozenset()
        """The records that are being put in force or read, and the state that says so."""
        self._leaving: tuple[State, bool] = {}, False
        """Whether any record of a state may be left out."""
        self._has_ended = False
        self._write()
        for problem in self.problems:
            journal.event(_log, logging.ERROR, "left-out", "%s", problem)

    @property
    def problems(self) -> tuple[str, ...]:
        """Return a line for each record that is left out."""
        return tuple(
            f"{name} is left out: {why}"
            for name, one in sorted(self._state.items())
            if name != START and (why := self.why_left_out(name, one.fingerprint))
        )

    @property
    def working(self) -> frozenset[Begun]:
        """Return the records that are being put in force, without those ``in_hand``."""
        state, working = self._working
        if state is not self._state:
            state = self._state
            working = self.begun(name for name, one in state.items() if one.works)
            self._working = state, working
        return working - self.in_hand

    def begun(self, names: Iterable[str]) -> frozenset[Begun]:
        """Return records as they were begun last."""
        return frozenset((name, self._turns.get(name, 0)) for name in names)

    def newest(self, begun: Iterable[Begun]) -> frozenset[str]:
        """Return the names of records that have not been begun anew since."""
        return frozenset(name for name, turn in begun if self._turns.get(name, 0) == turn)

    @property
    def leaves_out(self) -> bool:
        """Return whether any record may be left out."""
        state, leaves_out = self._leaving
        if state is not self._state:
            state = self._state
            leaves_out = any(one.is_left_out for one in state.values())
            self._leaving = state, leaves_out
        return leaves_out

    @property
    def is_narrowing(self) -> bool:
        """Return whether the next start would find out more about what is left out."""
        return not self._has_ended and suspects.is_narrowing(self._state)

    def narrow(self) -> None:
        """Choose what the next start is to try. This one has shown that it lives as it is, and is
        to end now: it notes nothing more."""
        with self._lock:
            if self.is_narrowing:
                self._has_ended = True
                self._replace(suspects.narrowed(self._state, self._clock()))

    def is_bare(self, name: str) -> bool:
        """Return whether nothing is to be in force in place of a record that is left out."""
        one = self._state.get(name)
        return one is not None and one.bare and bool(self.why_left_out(name, one.fingerprint))

    def knows(self, name: str, fingerprint: str | None = None) -> bool:
        """Return whether a process has died with a record, or before the record was tried; without
        a fingerprint, whatever the content of the record."""
        one = self._state.get(name)
        if one is None or not (one.deaths or one.waits):
            return False
        return fingerprint in {None, one.fingerprint}

    @property
    def suspected(self) -> dict[str, str]:
        """Return the fingerprints of what processes have died with, or before it was tried, by
        name."""
        return {
            name: one.fingerprint for name, one in self._state.items() if one.deaths or one.waits
        }

    def suspects(self, name: str, fingerprint: str | None = None) -> bool:
        """Return whether a record may end this process at its start."""
        return self._suspects_all or self.knows(name, fingerprint)

    def why_left_out(self, name: str, fingerprint: str) -> str:
        """Return why a record is left out; empty if it is to be put in force."""
        one = self._state.get(name)
        if one is None or not one.is_left_out or one.fingerprint != fingerprint:
            return ""
        if self._clock() >= one.lasts_until:
            return ""
        if not (one.is_at_fault or one.aside is Aside.FOUND):
            return (
                f"processes of meshd died {len(one.deaths)} times while they took up many records;"
                " it is set aside until it is known which of them are at fault"
            )
        return (
            f"a process of meshd died {len(one.deaths)} times while it took it up; it is kept in"
            f" {self._path}; correct it, or delete that file and restart meshd to have it tried"
            " again"
        )

    def start(self) -> None:
        """Note that a process begins, before anything is in force."""
        self.begin({START: ("", None)})

    def begin(
        self,
        records: Mapping[str, tuple[str, Content]],
        *,
        tentative: bool = False,
        noted: Callable[[frozenset[Begun]], None] = lambda _: None,
    ) -> frozenset[Begun]:
        """Note records, before anything is done with them, and return them; ``records``: see
        ``suspects.begun``. ``tentative``: what was noted before is kept until they are withdrawn or
        ``taken``. ``noted`` is called before they count as ``working``."""
        with self._lock:
            if records and not self._has_ended:
                for name, (fingerprint, _) in records.items():
                    one, turn = self._state.get(name), self._turns.get(name)
                    if not tentative:
                        self._former.pop(name, None)
                    elif one and turn and one.is_unproven and one.fingerprint != fingerprint:
                        self._former.setdefault(name, []).append((turn, one))
                    self._turns[name] = next(self._count)
                noted(self.begun(records))
                self._state = suspects.begun(self._state, records, self._clock())
                self._write()
            return self.begun(records)

    @contextlib.contextmanager
    def noted(self, name: str) -> Generator[None]:
        """Note a record while the block works on it, whatever its content is.

        Raises InvalidInputError if it is left out.
        """
        if why := self.why_left_out(name, ""):
            raise InvalidInputError(f"{name} is left out: {why}")
        self.begin({name: ("", None)})
        try:
            yield
        finally:
            self.done({name})

    @property
    def gives_up(self) -> bool:
        """Return whether too many starts in a row have failed, whatever was left out."""
        start = self._state.get(START)
        return start is not None and len(start.deaths) >= _LAST

    def start_anew(self) -> None:
        """Forget the failed starts."""
        with self._lock:
            self._state = {name: one for name, one in self._state.items() if name != START}
            self._write()

    def rest(self, idle: Collection[str]) -> None:
        """Note which of the records that are to be put in force wait."""
        with self._lock:
            self._replace(suspects.resting(self._state, idle))

    def taken(self, names: Iterable[str]) -> None:
        """Note that tentative records replace what was noted before."""
        with self._lock:
            for name in names:
                self._former.pop(name, None)

    def withdraw(self, begun: Collection[Begun]) -> None:
        """Strike off tentative records of which nothing comes: what was noted before, and has not
        been proven since, is noted again."""
        with self._lock:
            again: dict[str, Suspect] = {}
            newest = self.newest(begun)
            self._forget_former(begun, lambda noted, turn: noted == turn)
            for name in newest & self._former.keys():
                self._turns[name], again[name] = self._former[name].pop()
            self._replace(suspects.done({**self._state, **again}, newest - again.keys()))

    def proven(self, begun: Collection[Begun]) -> None:
        """Strike off records that have been put in force without a death, if they have not been
        begun anew since, and what was noted before them."""
        with self._lock:
            self._forget_former(begun, lambda noted, turn: noted <= turn)
            self._replace(suspects.done(self._state, self.newest(begun)))

    def _forget_former(self, begun: Iterable[Begun], is_gone: Callable[[int, int], bool]) -> None:
        for name, turn in begun:
            kept = [one for one in self._former.pop(name, ()) if not is_gone(one[0], turn)]
            if kept:
                self._former[name] = kept

    def done(self, names: Collection[str] | None = None) -> None:
        """Strike off records; None: all that are being put in force."""
        with self._lock:
            self.taken(tuple(self._former) if names is None else names)
            self._replace(suspects.done(self._state, self._state if names is None else names))

    def end(self) -> None:
        """Note that the process ends as it was told to: it dies of nothing, and notes nothing more,
        although its threads may go on until it is gone."""
        with self._lock:
            if not self._has_ended:
                self._has_ended = True
                self._replace(suspects.ended(self._state))
                with contextlib.suppress(SystemRefusedError):  # for former versions of meshd
                    self._log.settle(functools.partial(msgspec.json.encode, self._state))

    @property
    def is_empty(self) -> bool:
        """Return whether no record is noted."""
        return self._state.keys() <= {START}

    def keep_only(self, is_there: Callable[[str], bool]) -> None:
        """Forget records that no longer exist."""
        with self._lock:
            kept = {
                name: one for name, one in self._state.items() if name == START or is_there(name)
            }
            self.taken([name for name in self._former if not is_there(name)])
            self._replace(kept)

    def _replace(self, after: State) -> None:
        if after != self._state:
            self._state = after
            self._write()

    def _write(self) -> None:
        state, before = self._state, self._written
        with contextlib.suppress(OSError, SystemRefusedError):
            if state:
                gone = dict.fromkeys(before.keys() - state.keys())
                new = {name: one for name, one in state.items() if before.get(name) is not one}
                change = msgspec.json.encode({**gone, **new})
                self._log.append(change, functools.partial(msgspec.json.encode, state))
            else:
                self._log.remove()
            self._written = state


def parse(data: bytes) -> dict[str, Suspect]:
    """Return the state in a file. Raises InvalidInputError, or what msgspec does."""
    found = change_log.parse(data)
    state: dict[str, Suspect | None] = {**_suspects.decode(found.whole)}
    for change in found.changes:
        state |= _change.decode(change)
    return {name: one for name, one in state.items() if one is not None}
