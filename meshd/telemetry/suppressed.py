"""Log lines that were dropped or folded, from the log itself: the dropper, the source, the number.

Two components drop lines. meshd's own budget reports each kind of line that it drops or folds.
journald reports for each unit over its rate limit how many messages it dropped (but not which),
once that unit logs again.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from meshd.base.numbers import whole

UNIT: Final = "meshd.service"
_DROPPED_BY_JOURNALD: Final = "a596d6fe7bfa4994828e72309e95d61e"
"""SD_MESSAGE_JOURNAL_DROPPED, <systemd/sd-messages.h>."""
_EVENTS: Final = ("suppressed", "repeated")
_TOLD: Final = re.compile(r"Suppressed (\d+) messages from (\S+)")
_NO_TIME: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class What:
    by: str
    """meshd or journald."""
    unit: str
    role: str = ""
    workload: str = ""
    reason: str = "dropped"
    """dropped, or repeated: one of them was written."""
    message: str = ""
    """The template of the lines; empty: journald does not tell."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    what: What
    lines: int
    last: datetime.datetime
    """When it was told last, which is at most some seconds after it happened."""


class Tally:
    """The sums of this boot, from entries of the journal."""

    def __init__(self) -> None:
        self._rows: dict[What, Row] = {}

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        for entry in entries:
            if found := read(entry):
                what, lines = found
                before = self._rows.get(what)
                when = entry.get("__REALTIME_TIMESTAMP", _NO_TIME)
                self._rows[what] = Row(what, lines + (before.lines if before else 0), when)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Return the rows, the largest numbers first."""
        return tuple(sorted(self._rows.values(), key=lambda row: (-row.lines, row.what)))


def read(entry: Mapping[str, Any]) -> tuple[What, int] | None:
    """Return what an entry reports as dropped; None if it is about something else."""
    message = str(entry.get("MESSAGE", ""))
    if str(entry.get("MESSAGE_ID", "")).replace("-", "") == _DROPPED_BY_JOURNALD:
        told = _TOLD.search(message)
        count = whole(told[1]) if told else None
        return (What("journald", told[2]), count) if told and count is not None else None
    lines = whole(str(entry.get("MESHD_LINES", "")))
    if entry.get("MESHD_EVENT") not in _EVENTS or lines is None:
        return None
    what = What(
        by="meshd",
        unit=str(entry.get("_SYSTEMD_UNIT", "")),
        role=str(entry.get("MESHD_ROLE", "")),
        workload=str(entry.get("MESHD_WORKLOAD", "")),
        reason="repeated" if entry["MESHD_EVENT"] == "repeated" else "dropped",
        message=str(entry.get("MESHD_TEMPLATE", "")),
    )
    return what, lines


class Journal:
    """The relevant entries of the journal, each once; none for a user who may not read it."""

    def __init__(self) -> None:
        self._last = ""

    def entries(self) -> Iterator[Mapping[str, Any]]:
        """Yield the entries since the last call."""
        reader = _open()
        try:
            if self._last:
                reader.seek_cursor(self._last)
                reader.get_next()
            for entry in reader:
                self._last = entry["__CURSOR"]
                yield entry
        finally:
            reader.close()


def _open() -> Any:
    from systemd import journal  # noqa: PLC0415 - only here is libsystemd needed

    reader: Any = journal.Reader()
    # Of this boot, as the journal itself names it: in a container's sandbox the kernel may give
    # another name.
    reader.seek_tail()
    boot = reader.get_previous().get("_BOOT_ID")
    reader.seek_head()
    reader.add_match(MESSAGE_ID=_DROPPED_BY_JOURNALD)
    reader.add_disjunction()
    # The unit is journald's own word, so that nobody else can make this up.
    reader.add_match(_SYSTEMD_UNIT=UNIT)
    for event in _EVENTS:
        reader.add_match(MESHD_EVENT=event)
    reader.add_conjunction()
    if boot:
        reader.this_boot(boot)
    return reader
