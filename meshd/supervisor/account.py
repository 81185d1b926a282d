"""Tells others about the state of the children: the next supervisor by the record, systemd by one
line."""

from __future__ import annotations

import logging

from meshd.base import journal
from meshd.supervisor import record
from meshd.supervisor.home import Home
from meshd.supervisor.notify import notify

_log = logging.getLogger(__name__)


class Account:
    """The latest record and status line; neither is repeated unless it changes."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._recorded: tuple[record.Entry, ...] = ()
        self._told = ""

    def record(self, entries: tuple[record.Entry, ...]) -> None:
        if entries == self._recorded:
            return
        try:
            record.write(self._home, entries)
            self._recorded = entries
        except OSError as error:
            journal.event(_log, logging.ERROR, "record", "%s: %s", self._home.record, error)

    def tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            notify(STATUS=text)
