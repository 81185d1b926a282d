"""The last answers of a pool's proxies about themselves."""

from __future__ import annotations

import logging

from meshd import wire
from meshd.base import journal
from meshd.base.errors import MeshdError
from meshd.proxy.admin import Admin, Vitals
from meshd.proxy.pool import Member, Running
from meshd.supervisor.home import Home
from meshd.supervisor.process import Identity
from meshd.supervisor.runner import Runner

_log = logging.getLogger(__name__)


class Seen:
    """Answers of the processes that run now; a restart voids the answer of the process before."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._vitals: dict[Member, tuple[Identity, Vitals]] = {}

    async def ask(self, member: Member, runner: Runner) -> None:
        identity = runner.identity
        try:
            vitals = await Admin(self._home.admin(member.name), timeout=1.0).vitals()
        except MeshdError:
            return
        if vitals.live and not self.is_live(member, runner):
            journal.event(_log, logging.INFO, "live", "%s is live", member.name)
        self._vitals[member] = identity, vitals

    def forget(self, member: Member) -> None:
        self._vitals.pop(member, None)

    def is_live(self, member: Member, runner: Runner) -> bool:
        seen = self._vitals.get(member)
        return bool(seen and seen[1].live and seen[0] == runner.identity)

    def running(self, member: Member, runner: Runner) -> Running:
        """Return a member's state for the plan."""
        leaving = runner.child.leaving
        if not self.is_live(member, runner):
            return Running(member, leaving=leaving)
        vitals = self._vitals[member][1]
        listeners = 0 if vitals.warming else vitals.listeners
        return Running(member, True, listeners, leaving)

    def status(self, member: Member, runner: Runner) -> wire.RoleStatus:
        """Return a member's state for ``meshctl status``."""
        told = runner.status
        if told.state != "running" or self.is_live(member, runner):
            return told
        return wire.RoleStatus(
            told.name, told.pid, "starting", told.restarts, told.since, told.problem
        )
