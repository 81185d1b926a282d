"""What the proxies may hold on this machine, as it is said in the journal and by ``--check``."""

from __future__ import annotations

import logging

from meshd import journal
from meshd.model.capacity import Capacity
from meshd.proxy.machine import capacity_here
from meshd.settings import ProxySettings

_log = logging.getLogger(__name__)


class Told:
    """Says it once, and again when it is another."""

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
    """What the settings ask for and this machine has not."""
    return capacity_here(proxy).warnings
