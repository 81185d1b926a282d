"""Records during which a process died, found by what it worked on when it ended unexpectedly.

A record is noted on disk before it is put in force, and struck off once that has gone well. The
next start finds what was left. A record that was there at three deaths in a row is left out, and
reported, until it changes or an hour has passed. When there were many, half of them are set aside
at each further start, until few are left without which no process dies.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from meshd.base import journal
from meshd.base.errors import UNDECODABLE

_DEATHS: Final = 3
_WINDOW: Final = 600.0
"""Seconds within which deaths count."""
_LEFT_OUT_FOR: Final = 3600.0
"""Seconds after which it is tried again."""
_MOST: Final = 16
"""Records that are left out for good at once; of more, those at fault are looked for."""
_log = logging.getLogger(__name__)


class Aside(enum.StrEnum):
    """The reason why a record is left out: it is at fault, or others are being tried without it."""

    NOT = "no"
    SUSPECTED = "suspected"
    """If nobody dies without it and others."""
    WAITING = "waiting"
    """Processes died without it. It is tried again once it is known what those died of."""


class Suspect(msgspec.Struct, frozen=True):
    fingerprint: str
    """Of its content: another one begins anew."""
    content: Any = None
    """So that it is not lost."""
    deaths: tuple[float, ...] = ()
    """When, in Unix seconds."""
    began: float = 0.0
    """When this content came first, in Unix seconds."""
    works: bool = True
    """It is being put in force."""
    aside: Aside = Aside.NOT

    @property
    def is_left_out(self) -> bool:
        return self.aside is not Aside.NOT or len(self.deaths) >= _DEATHS


State = Mapping[str, Suspect]
"""By the name of the record."""


def died(state: State, now: float) -> dict[str, Suspect]:
    """Return the suspects after a process has ended with this state."""
    after = {name: ended for name, one in state.items() if (ended := _ended(one, now)).deaths}
    working = {name for name, one in state.items() if one.works and after[name].is_left_out}
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


def _ended(one: Suspect, now: float) -> Suspect:
    if one.works:
        recent = tuple(moment for moment in one.deaths if moment > now - _WINDOW)
        return msgspec.structs.replace(one, deaths=(*recent, now), works=False)
    lasts = _LEFT_OUT_FOR if one.is_left_out else _WINDOW
    return one if one.deaths and now < one.deaths[-1] + lasts else Suspect(one.fingerprint)


def begun(state: State, records: Mapping[str, tuple[str, Any]], now: float) -> dict[str, Suspect]:
    """Return the suspects when work begins; ``records``: fingerprint and content by name."""
    after = dict(state)
    for name, (fingerprint, content) in records.items():
        before = state.get(name)
        same = before if before and before.fingerprint == fingerprint else None
        deaths, began = (same.deaths, same.began) if same else ((), now)
        kept = content if len(records) <= _MOST else None
        after[name] = Suspect(fingerprint, kept, deaths, began)
    return after


def done(state: State, names: Collection[str]) -> dict[str, Suspect]:
    """Return the suspects after records were put in force without a death."""
    return {name: one for name, one in state.items() if not (one.works and name in names)}


class Attempts:
    """The state on disk. If it cannot be written, nothing is left out."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._state: State = died(_read(path), clock())
        self._write()
        for problem in self.problems:
            journal.event(_log, logging.ERROR, "left-out", "%s", problem)

    @property
    def problems(self) -> tuple[str, ...]:
        """Return a line for each record that is left out."""
        return tuple(
            f"{name} is left out: {why}"
            for name, one in sorted(self._state.items())
            if (why := self.why_left_out(name, one.fingerprint))
        )

    @property
    def working(self) -> frozenset[str]:
        """Return the names of what is being put in force."""
        return frozenset(name for name, one in self._state.items() if one.works)

    @property
    def is_narrowing(self) -> bool:
        """Return whether the next start would find out more about what is left out."""
        return not self.working and any(
            one.aside is Aside.SUSPECTED for one in self._state.values()
        )

    def knows(self, name: str, fingerprint: str | None = None) -> bool:
        """Return whether a process has died with a record. None: with any content."""
        one = self._state.get(name)
        return one is not None and bool(one.deaths) and fingerprint in {None, one.fingerprint}

    def why_left_out(self, name: str, fingerprint: str) -> str:
        """Return why a record is left out; empty if it is to be put in force."""
        one = self._state.get(name)
        if one is None or not one.is_left_out or one.fingerprint != fingerprint:
            return ""
        if self._clock() >= one.deaths[-1] + _LEFT_OUT_FOR:
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

    def begin(self, records: Mapping[str, tuple[str, Any]]) -> None:
        """Note records, before anything is done with them; ``records``: see ``begun``."""
        if records:
            self._state = begun(self._state, records, self._clock())
            self._write()

    def done(self, names: Collection[str] | None = None) -> None:
        """Strike off records; None: all that are being put in force."""
        after = done(self._state, self._state if names is None else names)
        if after != self._state:
            self._state = after
            self._write()

    def keep_only(self, is_there: Callable[[str], bool]) -> None:
        """Forget records that no longer exist."""
        if gone := [name for name in self._state if not is_there(name)]:
            self._state = {name: one for name, one in self._state.items() if name not in gone}
            self._write()

    def _write(self) -> None:
        new = self._path.with_name(f".{self._path.name}.new")
        with contextlib.suppress(OSError):
            if not self._state:
                self._path.unlink(missing_ok=True)
                return
            new.touch(mode=0o600)
            new.write_bytes(msgspec.json.encode(self._state))
            new.replace(self._path)


def _read(path: Path) -> State:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Suspect])
    except (OSError, *UNDECODABLE):
        return {}
