"""The records of this node's workloads on disk: those of services of the host, and those of all.

A service of the host is registered if the first record has it, and outlives a reboot. Of other
workloads, and of how far each is, the second tells as long as namespaces live.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.model.workload import Workload
from meshd.node.known import Known
from meshd.settings import Paths
from meshd.workloads import record
from meshd.workloads.host import host_services, restoring
from meshd.workloads.lifecycle import Life

_log: Final = logging.getLogger(__name__)


class Records:
    """Both records. They are written only where they differ from what was written."""

    def __init__(self, paths: Paths) -> None:
        self._services = paths.lib / host_services.RECORD
        self._running = paths.workloads
        self._pins = paths.netns
        self._written = record.Record()

    def load(self) -> Known:
        services = record.load(self._services, keep=True)
        running = record.load(self._running, keep=True)
        found = restoring.restore(services, running, restoring.pinned(self._pins))
        self._written = record.Record(found.registered, found.lives)
        for problem in (services.lost, running.lost, *found.problems.values()):
            if problem:
                _log.error("%s", problem, extra={"MESHD_EVENT": "record-lost"})
        return Known(
            registered=found.registered,
            lives=found.lives,
            damaged=found.problems,
            host_is_known=not (services.lost and running.lost),
        )

    def save(self, registered: Mapping[str, Workload], lives: Mapping[str, Life]) -> None:
        """Write both records, or none. Raises SystemRefusedError.

        What is not there yet is written to the second record first: a service of the host that
        only that one has is not registered.
        """
        before, after = self._written, record.Record(dict(registered), dict(lives))
        if after == before:
            return
        record.save(self._running, after)
        try:
            host_services.save(self._services, after.registered, before.registered)
        except SystemRefusedError:
            with contextlib.suppress(SystemRefusedError):
                record.save(self._running, before)
            raise
        self._written = after
