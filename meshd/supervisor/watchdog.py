"""Replaces proxies that hang: the shell around ``hang``.

Envoy's own watchdog counts wall time, and so ends proxies that are only short of processor time;
and it stops together with a proxy that is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd import wire
from meshd.base import journal
from meshd.base.errors import MeshdError
from meshd.proxy.admin import Admin
from meshd.proxy.pool import Member
from meshd.supervisor import hang
from meshd.supervisor.home import Home
from meshd.supervisor.process import Identity
from meshd.supervisor.runner import Runner

_log = logging.getLogger(__name__)
_SILENT: Final = 2
"""Answers missed in a row until that is told: one may come late."""


class Watchdog:
    """The watchdog of one pool, whose ``runners`` may change; ``changed`` is called with each
    status."""

    def __init__(
        self, home: Home, runners: Mapping[Member, Runner], changed: Callable[[], None]
    ) -> None:
        self._home = home
        self._runners = runners
        self._changed = changed
        self._silent: dict[str, tuple[Identity, hang.Silence]] = {}

    def status(self, told: wire.RoleStatus) -> wire.RoleStatus:
        """Return a member's status with what the watchdog knows; ``told`` is the status of its
        process."""
        identity, silence = self._silent.get(told.name, (None, None))
        if not identity or not silence or silence.misses < _SILENT or identity.pid != told.pid:
            return told
        missed = f"{silence.misses} answers missed in a row"
        return msgspec.structs.replace(told, state="silent", problem=missed)

    async def keep(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(hang.SHORT_INTERVAL if self._silent else hang.INTERVAL)
            running = [one for one in self._runners.items() if one[1].identity.pid]
            before = self._silent
            found = await asyncio.gather(*(self._look(*one) for one in running))
            self._silent = {name: silence for name, silence in found if silence}
            if before != self._silent:
                self._changed()
            self._end_hanging()

    async def _look(
        self, member: Member, runner: Runner
    ) -> tuple[str, tuple[Identity, hang.Silence] | None]:
        identity = runner.identity
        try:
            await Admin(self._home.admin(member.name), timeout=hang.ANSWER_LIMIT).is_live()
        except MeshdError:
            thread = _thread(identity.pid)
        else:
            return member.name, None
        if thread is None or identity != runner.identity:
            return member.name, None  # its end is noticed elsewhere
        known, silence = self._silent.get(member.name, (identity, None))
        return member.name, (identity, hang.heard(silence if known == identity else None, thread))

    def _end_hanging(self) -> None:
        """End all members that are stopped; of others, whose worker threads go on, one at a
        time."""
        spared = False
        runners = {runner.name: runner for runner in self._runners.values()}
        for name, (identity, silence) in self._silent.items():
            runner = runners.get(name)
            if runner is None or runner.identity != identity or not silence.verdict:
                continue
            if spared and not silence.is_stopped:
                continue
            spared = spared or not silence.is_stopped
            text = "%s (pid %d) was sent SIGKILL: %s"
            values = (name, identity.pid, silence.verdict)
            journal.event(_log, logging.ERROR, "hung", text, *values)
            runner.kill(silence.verdict)


def _thread(pid: int) -> hang.Thread | None:
    """Return the main thread of a process; None if it is gone."""
    task = Path(f"/proc/{pid}/task/{pid}")
    try:
        stat = (task / "stat").read_text(encoding="utf-8", errors="replace")
        return hang.parse(stat, (task / "schedstat").read_text(encoding="ascii"))
    except OSError:
        return None
