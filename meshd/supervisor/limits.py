"""The capacity of proxies on this machine, as the journal and ``--check`` report it."""

from __future__ import annotations

import logging

from meshd.base import journal
from meshd.model.capacity import Capacity
from meshd.proxy.machine import capacity_here
from meshd.settings import ProxySettings

_log = logging.getLogger(__name__)


class Told:
    """Reports the capacity once, and again when it changes."""

    def __init__(self) -> None:
        self._last: Capacity | None = None

    def tell(self, proxy: ProxySettings) -> None:
        found = capacity_here(proxy)
        if found == self._last:
            return
        self._last = found
        journal.event(_log, logging.INFO, "limits", "limits: %s", found)
        for warning in found.warnings:
            journal.event(_log, logging.WARNING, "limits", "%s", warning)


def warnings(proxy: ProxySettings) -> tuple[str, ...]:
    """Return a warning for each setting that asks for more than this machine has."""
    return capacity_here(proxy).warnings
