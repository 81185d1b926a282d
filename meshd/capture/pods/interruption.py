"""Reports and counts foreign changes of rules that took a workload out of the mesh."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Final

from meshd.base.moments import rfc3339
from meshd.capture.rules.nfnetlink import Change
from meshd.model.workload import Interruptions, shown

_PROGRAMS: Final = 8
"""Told apart for each workload: a process may call itself whatever it likes."""
_OTHERS: Final = "others"
_SHOWN: Final = 3

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Interruption:
    """One interruption, from when it was noticed."""

    changes: tuple[Change, ...]
    """As far as the kernel has told."""
    steps: Sequence[str]
    """What puts the rules back."""
    began: float
    """By the monotonic clock."""

    @property
    def text(self) -> str:
        return f"{authors(self.changes)} changed its rules ({_first(self.steps)})"

    def ended(self) -> Ended:
        seconds = time.monotonic() - self.began
        text = f"{self.text}; they were restored after {seconds:.2f} s"
        return Ended(_program(self.changes), seconds, text, rfc3339(time.time()))


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """An interruption that is over: the rules are back."""

    program: str
    """Empty where the kernel does not tell."""
    seconds: float
    text: str
    moment: str
    """RFC 3339."""


class Precedence:
    """Foreign rules that stay before ours, from when they were noticed until they are gone."""

    def __init__(self) -> None:
        self.problem = ""
        """One line, as long as there are any."""
        self._rules: tuple[str, ...] = ()
        self._changes: tuple[Change, ...] = ()
        self._began = 0.0

    def become(self, rules: tuple[str, ...], changes: tuple[Change, ...]) -> Ended | None:
        """Note the present rules; return what has ended. ``changes``: those that led to these
        rules."""
        if rules == self._rules:
            return None
        ended = self._ended() if self._rules and not rules else None
        if rules and not self._rules:
            self._began, self._changes = time.monotonic(), changes
        self._rules = rules
        self.problem = self._text("stand") if rules else ""
        return ended

    def _text(self, verb: str) -> str:
        by = f", put there by {authors(self._changes)}" if self._changes else ""
        what = f"rules of others {verb} before the mesh's and may lead around it"
        return f"{what}{by}: {_first(self._rules)}"

    def _ended(self) -> Ended:
        seconds = time.monotonic() - self._began
        text = f"{self._text('stood')}; they were gone after {seconds:.2f} s"
        return Ended(_program(self._changes), seconds, text, rfc3339(time.time()))


def _first(texts: Sequence[str]) -> str:
    return "; ".join(texts[:_SHOWN]) + (" …" if len(texts) > _SHOWN else "")


def _program(changes: Sequence[Change]) -> str:
    """Return the program that made the last change; empty where the kernel does not tell."""
    return changes[-1].program if changes else ""


def found(changes: tuple[Change, ...], steps: Sequence[str], noticed: float) -> Interruption | None:
    """Return an interruption; None if nothing has to be written again. ``noticed``: 0 is now."""
    return Interruption(changes, steps, noticed or time.monotonic()) if steps else None


def authors(changes: Iterable[Change]) -> str:
    """Return the programs and processes that made the changes. Pure."""
    found = [f"{one.program} (process {one.process})" for one in changes if one.program]
    return ", ".join(list(dict.fromkeys(found))[-_SHOWN:]) or "somebody else"


def counted(before: Interruptions, one: Ended) -> Interruptions:
    """Return the count with one more. Pure."""
    program = one.program
    if program not in before.counts and len(before.counts) >= _PROGRAMS:
        program = _OTHERS
    counts = {**before.counts, program: before.counts.get(program, 0) + 1}
    return Interruptions(before.seconds + one.seconds, counts, f"{one.moment}: {one.text}")


def say(one: Ended, uid: str) -> None:
    """Log an interruption."""
    fields = {"MESHD_WORKLOAD": uid, "MESHD_EVENT": "capture"}
    _log.warning("workload %s: %s", shown(uid), one.text, extra=fields)
