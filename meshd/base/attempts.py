"""Records during which a process died, found by what it worked on when it ended unexpectedly.

A record is noted on disk before it is put in force, and struck off once that has gone well. The
next start finds what was left. A record that was there at three deaths in a row is left out, and
reported, until it changes or an hour has passed. When there were several, half of them are set
aside at each further start, until one is left without which no process dies.

A process that dies at its start while no record is noted may have died of any record: the next
process notes all of them.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from meshd.base import journal, kept_file
from meshd.base.disk import Disk, write_whole
from meshd.base.json_values import Json

_DEATHS: Final = 3
_WINDOW: Final = 600.0
"""Seconds within which deaths count."""
LEFT_OUT_FOR: Final = 3600.0
"""Seconds after which it is tried again."""
_MOST: Final = 1
"""Records that are left out for good at once; among more, the search goes on."""
_KEPT: Final = 16
"""The content of records is kept if no more than these come at once."""
_START: Final = "start"
"""The name of the record that stands for the start of a process itself."""
_log = logging.getLogger(__name__)


Content: TypeAlias = Json | bytes
"""The content of a record: a JSON value, or what has not been decoded yet."""


Begun: TypeAlias = tuple[str, int]
"""The name of a record, and the number of times that it had been begun then."""


_LAST: Final = 24
"""Successive deaths at the start after which nothing is put in force."""


class Aside(enum.StrEnum):
    """The reason why a record is left out: it is at fault, or others are being tried without it."""

    NOT = "no"
    SUSPECTED = "suspected"
    """It is at fault, alone or with others, if no process dies meanwhile."""
    WAITING = "waiting"
    """Processes died without it. It is tried again once it is known what those died of."""


class Suspect(msgspec.Struct, frozen=True):
    fingerprint: str
    """Of its content: another one begins anew."""
    content: Content = None
    """So that it is not lost."""
    deaths: tuple[float, ...] = ()
    """When, in Unix seconds."""
    began: float = 0.0
    """When this content came first, in Unix seconds."""
    works: bool = True
    """It is being put in force."""
    waits: bool = False
    """It is to be put in force later: no process can die of it now."""
    aside: Aside = Aside.NOT

    @property
    def is_left_out(self) -> bool:
        return self.aside is not Aside.NOT or len(self.deaths) >= _DEATHS


State = Mapping[str, Suspect]
_suspects: Final = msgspec.json.Decoder(dict[str, Suspect])
_FORGOTTEN: Final = "records that processes died of are tried again"
"""By the name of the record."""


def died(state: State, now: float) -> dict[str, Suspect]:
    """Return the suspects after a process has ended with this state."""
    # A start that takes minutes counts as others do: one that goes well ends the row.
    windows = {_START: LEFT_OUT_FOR}
    ended = {name: _ended(one, now, windows.get(name, _WINDOW)) for name, one in state.items()}
    after = {name: one for name, one in ended.items() if one.deaths or one.waits}
    working = {
        name
        for name, one in state.items()
        if one.works and after[name].is_left_out and name != _START
    }
    aside = {name for name, one in after.items() if one.aside is Aside.SUSPECTED}
    if working:
        newest = max(after[name].began for name in working)
        # What came first may only have been there: it is the next one, if they die without.
        older = {name for name in working if after[name].began < newest}
        after |= _on_trial(after, older) | _put(after, aside, Aside.WAITING)
        return _narrowed(after, working - older)
    if any(one.works for one in state.values()) or not aside:
        return after
    return _narrowed(after, aside)  # nobody died without them


def _narrowed(state: State, suspects: Collection[str]) -> dict[str, Suspect]:
    """Return few suspects as left out; of more, half are tried without the others."""
    names, half = sorted(suspects), len(suspects) // 2
    if len(names) > _MOST:
        rest = _put(state, names[half:], Aside.SUSPECTED)
        return {**state, **rest, **_on_trial(state, names[:half])}
    waiting = [name for name, one in state.items() if one.aside is Aside.WAITING]
    out = _put(state, names, Aside.NOT)
    return {**state, **out, **_on_trial(state, waiting, deaths=1)}


def _put(state: State, names: Iterable[str], aside: Aside) -> dict[str, Suspect]:
    return {name: msgspec.structs.replace(state[name], aside=aside) for name in names}


def _on_trial(state: State, names: Iterable[str], deaths: int = _DEATHS - 1) -> dict[str, Suspect]:
    """Return records that are put in force again, with this number of deaths counted."""
    return {
        name: msgspec.structs.replace(one, deaths=one.deaths[-deaths:], aside=Aside.NOT)
        for name in names
        if (one := state[name])
    }


def _ended(one: Suspect, now: float, window: float) -> Suspect:
    if one.works:
        recent = tuple(moment for moment in one.deaths if moment > now - window)
        return msgspec.structs.replace(one, deaths=(*recent, now), works=False)
    if one.waits:
        return one
    lasts = LEFT_OUT_FOR if one.is_left_out else window
    return one if one.deaths and now < one.deaths[-1] + lasts else Suspect(one.fingerprint)


def _at_fault(state: State) -> frozenset[str]:
    """Return the records that are left out for good."""
    return frozenset(
        name
        for name, one in state.items()
        if one.is_left_out and one.aside is Aside.NOT and name != _START
    )


def _died_of_nothing_known(state: State) -> bool:
    """Return whether a process has ended at its start while no record was noted."""
    return {name for name, one in state.items() if one.works} == {_START}


def begun(
    state: State, records: Mapping[str, tuple[str, Content]], now: float
) -> dict[str, Suspect]:
    """Return the suspects when work begins; ``records``: fingerprint and content by name."""
    after = dict(state)
    for name, (fingerprint, content) in records.items():
        before = state.get(name)
        same = before if before and before.fingerprint == fingerprint else None
        deaths, began = (same.deaths, same.began) if same else ((), now)
        kept = content if len(records) <= _KEPT else None
        after[name] = Suspect(fingerprint, kept, deaths, began)
    return after


def done(state: State, names: Collection[str]) -> dict[str, Suspect]:
    """Return the suspects after records were put in force without a death."""
    return {
        name: one for name, one in state.items() if not ((one.works or one.waits) and name in names)
    }


def resting(state: State, idle: Collection[str]) -> dict[str, Suspect]:
    """Return the suspects while the records in ``idle`` wait."""
    return {
        name: msgspec.structs.replace(one, works=name not in idle, waits=name in idle)
        if (one.works and name in idle) or (one.waits and name not in idle)
        else one
        for name, one in state.items()
    }


class Attempts:
    """The state on disk, which any thread may change. If it cannot be written, nothing is left
    out."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        self.in_hand: Collection[str] = ()
        """Names of records that are being read, and cannot be put in force yet."""
        before = kept_file.load(path, _suspects.decode, _FORGOTTEN) or {}
        self._state: State = died(before, clock())
        self.newly_left_out: Final = _at_fault(self._state) - _at_fault(before)
        """The names of records that are left out from this start on."""
        self._suspects_all = _died_of_nothing_known(before)
        self._turns: dict[str, int] = {}
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
            if name != _START and (why := self.why_left_out(name, one.fingerprint))
        )

    @property
    def working(self) -> frozenset[Begun]:
        """Return the records that are being put in force, without those ``in_hand``."""
        return frozenset(
            (name, self._turns.get(name, 0))
            for name, one in self._state.items()
            if one.works and name not in self.in_hand
        )

    def newest(self, begun: Iterable[Begun]) -> frozenset[str]:
        """Return the names of records that have not been begun anew since."""
        return frozenset(name for name, turn in begun if self._turns.get(name, 0) == turn)

    @property
    def leaves_out(self) -> bool:
        """Return whether any record may be left out."""
        return any(one.is_left_out for one in self._state.values())

    @property
    def is_narrowing(self) -> bool:
        """Return whether the next start would find out more about what is left out."""
        is_working = any(one.works for one in self._state.values())
        return not is_working and any(one.aside is Aside.SUSPECTED for one in self._state.values())

    def knows(self, name: str, fingerprint: str | None = None) -> bool:
        """Return whether a process has died with a record, or before the record was tried; without
        a fingerprint, whatever the content of the record."""
        one = self._state.get(name)
        if one is None or not (one.deaths or one.waits):
            return False
        return fingerprint in {None, one.fingerprint}

    def suspects(self, name: str, fingerprint: str | None = None) -> bool:
        """Return whether a record may end this process at its start."""
        return self._suspects_all or self.knows(name, fingerprint)

    def why_left_out(self, name: str, fingerprint: str) -> str:
        """Return why a record is left out; empty if it is to be put in force."""
        one = self._state.get(name)
        if one is None or not one.is_left_out or one.fingerprint != fingerprint:
            return ""
        if self._clock() >= one.deaths[-1] + LEFT_OUT_FOR:
            return ""
        if one.aside is not Aside.NOT:
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
        self.begin({_START: ("", None)})

    def begin(self, records: Mapping[str, tuple[str, Content]]) -> None:
        """Note records, before anything is done with them; ``records``: see ``begun``."""
        with self._lock:
            if records and not self._has_ended:
                self._state = begun(self._state, records, self._clock())
                self._turns |= {name: self._turns.get(name, 0) + 1 for name in records}
                self._write()

    @property
    def gives_up(self) -> bool:
        """Return whether too many starts in a row have failed, whatever was left out."""
        start = self._state.get(_START)
        return start is not None and len(start.deaths) >= _LAST

    def start_anew(self) -> None:
        """Forget the failed starts."""
        with self._lock:
            self._state = {name: one for name, one in self._state.items() if name != _START}
            self._write()

    def rest(self, idle: Collection[str]) -> None:
        """Note which of the records that are to be put in force wait."""
        with self._lock:
            self._replace(resting(self._state, idle))

    def done(self, names: Collection[str] | None = None) -> None:
        """Strike off records; None: all that are being put in force."""
        with self._lock:
            self._replace(done(self._state, self._state if names is None else names))

    def end(self) -> None:
        """Note that the process ends as it was told to: it dies of nothing, and notes nothing more,
        although its threads may go on until it is gone."""
        with self._lock:
            self._has_ended = True
            self.done()

    def keep_only(self, is_there: Callable[[str], bool]) -> None:
        """Forget records that no longer exist."""
        with self._lock:
            kept = {
                name: one for name, one in self._state.items() if name == _START or is_there(name)
            }
            self._replace(kept)

    def _replace(self, after: State) -> None:
        if after != self._state:
            self._state = after
            self._write()

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            if self._state:
                write_whole(Disk(), self._path, msgspec.json.encode(self._state), durable=False)
            else:
                self._path.unlink(missing_ok=True)
