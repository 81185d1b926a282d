"""The log budget: what may be written, and what becomes of the rest. Pure: the caller has the
clock.

Each source (a workload, or a role itself) has a bucket of lines and one of bytes. What fits is
written. Of equal lines within an interval the first is written and the others are counted, and
reported as "repeated 412 times"; what does not fit is counted by its template, which is the line
without what varies. The counts are reported at the end of each interval. So a flood costs a few
lines, no other source loses lines for it, and no line goes uncounted.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Final

INTERVAL: Final = 5.0
"""Seconds after which counts are told."""
_BURST: Final = 10.0
"""A source that was quiet may write as much as comes together in so many seconds."""
_MOST_FOLDED: Final = 64
"""Different lines of one source in an interval that are remembered to fold others into them."""
_MOST_TEMPLATES: Final = 64
_OTHERS: Final = "(others)"
_LONGEST_TEMPLATE: Final = 100
_VARYING: Final = re.compile(
    r'"[^"]*"'  # what came from outside
    r"|\b(?=\w*\d)[\w.:-]+"  # numbers, addresses, ids: a word with a digit in it
)


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The limits of each source in a second."""

    lines: float = 20.0
    bytes: float = 8192.0


USUAL: Final = Limits()


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """Lines of one template that were not written. ``repeated``: they equal one that was."""

    template: str
    lines: int
    repeated: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The lines that one source did not get to write in an interval."""

    source: str
    lost: tuple[Lost, ...]

    @property
    def dropped(self) -> int:
        return sum(lost.lines for lost in self.lost if not lost.repeated)

    @property
    def repeated(self) -> int:
        return sum(lost.lines for lost in self.lost if lost.repeated)


@dataclasses.dataclass(slots=True)
class _Source:
    lines: float
    bytes: float
    filled: float
    """When its buckets were last filled up."""
    seen: collections.Counter[str]
    """How often a line that was written came again."""
    dropped: collections.Counter[str]


class Budget:
    """The budget of one process; ``limits`` holds for each source alone."""

    def __init__(self, limits: Limits = USUAL, now: float = 0.0) -> None:
        self._limits = limits
        self._sources: dict[str, _Source] = {}
        self._told = now

    def admits(self, source: str, line: str, now: float, kind: str = "") -> bool:
        """Return whether to write a line; otherwise it is counted, as of ``kind`` if the caller
        knows it."""
        found = self._sources.get(source)
        if found is None:
            most = self._limits.lines * _BURST, self._limits.bytes * _BURST
            empty = collections.Counter[str](), collections.Counter[str]()
            found = self._sources[source] = _Source(*most, now, *empty)
        if line in found.seen:
            found.seen[line] += 1
            return False
        self._fill(found, now)
        if found.lines < 1 or found.bytes < len(line):
            self._drop(found, kind or template(line))
            return False
        found.lines -= 1
        found.bytes -= len(line)
        if len(found.seen) < _MOST_FOLDED:
            found.seen[line] = 0
        return True

    def reports(self, now: float, *, at_once: bool = False) -> Iterator[Report]:
        """Yield what was not written, if an interval is over. Each line is in one report only."""
        if now - self._told < INTERVAL and not at_once:
            return
        self._told = now
        for name, found in list(self._sources.items()):
            repeated = [Lost(line, count, True) for line, count in found.seen.items() if count]
            dropped = [Lost(line, count) for line, count in found.dropped.most_common()]
            if repeated or dropped:
                yield Report(name, (*repeated, *dropped))
            elif now - found.filled > _BURST:
                del self._sources[name]  # its buckets are full, as those of a new one are
            found.seen.clear()
            found.dropped.clear()

    def _fill(self, source: _Source, now: float) -> None:
        passed = max(0.0, now - source.filled)
        source.filled = now
        limits = self._limits
        source.lines = min(source.lines + passed * limits.lines, limits.lines * _BURST)
        source.bytes = min(source.bytes + passed * limits.bytes, limits.bytes * _BURST)

    @staticmethod
    def _drop(source: _Source, name: str) -> None:
        known = name in source.dropped or len(source.dropped) < _MOST_TEMPLATES
        source.dropped[name if known else _OTHERS] += 1


@functools.lru_cache(maxsize=1024)
def template(line: str) -> str:
    """Return what lines of one kind have in common."""
    return _VARYING.sub("…", line[:_LONGEST_TEMPLATE])
