"""One proxy as the supervisor's child: its bootstrap, its end, its output."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from meshd.base import journal
from meshd.base.errors import SystemRefusedError
from meshd.model.pool import Pool
from meshd.proxy import bootstrap, launch, machine
from meshd.proxy.pool import Member
from meshd.settings import Settings
from meshd.supervisor.child import Policy
from meshd.supervisor.draining import close_connections, turn_queries_away
from meshd.supervisor.home import Home, write_file
from meshd.supervisor.lines import read
from meshd.supervisor.output import File
from meshd.supervisor.privileges import Users, proxy_command
from meshd.supervisor.runner import Runner
from meshd.supervisor.service import scoped

_log = logging.getLogger(__name__)
_GRACE: Final = {Pool.TRAFFIC: 0.5, Pool.DNS: 1.2}
"""Seconds; a drained Envoy ends at once, but for ten thousands of recent queries' sockets."""
Bootstrap = Callable[[Settings, Member], bootstrap.Json]


class Maker:
    """Makes proxies. ``make_bootstrap`` writes the bootstrap of each.

    A proxy follows ``settings`` as they are when it is started.
    """

    def __init__(
        self,
        *,
        home: Home,
        users: Users,
        settings: Settings,
        environment: Mapping[str, str],
        slice_name: str,
        make_bootstrap: Bootstrap | None = None,
    ) -> None:
        self.home = home
        self.settings = settings
        self._users = users
        self._environment = environment
        self._slice = slice_name
        self._bootstrap = make_bootstrap or self._usual_bootstrap

    def make(self, member: Member, changed: Callable[[], None]) -> Runner:
        """Return a runner that is not started yet."""

        def pass_on(line: str) -> None:
            _pass_on(member.name, line, leaving=runner.child.leaving)

        def drain() -> Awaitable[None]:
            if member.pool is Pool.TRAFFIC:
                return close_connections(self.home.admin(member.name))
            return turn_queries_away(member.name, runner.identity.pid, outside=bool(self._slice))

        runner = Runner(
            member.name,
            command=lambda: self._command(member),
            environment=self._environment,
            output=File(member.name, pass_on, self._users.proxy.uid),
            policy=Policy(drain=float(self.settings.proxy.drain_time), grace=_GRACE[member.pool]),
            changed=changed,
            drain=drain,
        )
        return runner

    def remove_files(self, member: Member) -> None:
        """Remove the files of a proxy that has ended."""
        for path in (self.home.bootstrap, self.home.admin):
            path(member.name).unlink(missing_ok=True)

    def _command(self, member: Member) -> Sequence[str]:
        """Raises MeshdError."""
        path = self.home.bootstrap(member.name)
        text = json.dumps(self._bootstrap(self.settings, member))
        try:
            write_file(path, text, self._users.proxy.gid)
        except OSError as error:
            raise SystemRefusedError(f"{path}: cannot be written: {error.strerror}") from None
        proxy = self.settings.proxy
        arguments = bootstrap.arguments(proxy, member.pool, path)
        command = proxy_command(self._users, launch.command(sys.executable, proxy, arguments))
        return scoped(self._slice, member.name, command) if self._slice else command

    def _usual_bootstrap(self, settings: Settings, member: Member) -> bootstrap.Json:
        capacity = machine.capacity_here(settings.proxy)
        return bootstrap.bootstrap(settings, self.home.paths, member, capacity)


def _pass_on(name: str, line: str, *, leaving: bool) -> None:
    """Write a proxy's line into our own log, at the level that the proxy gave it."""
    found = read(line)
    level = found.level
    if level == logging.WARNING and leaving:
        level = logging.DEBUG  # it comments on its own end, which was asked for
    if not _log.isEnabledFor(level) or not journal.admits(
        name, found.workload, found.text, found.kind
    ):
        return
    extra = {
        "MESHD_ROLE": name,
        "MESHD_WORKLOAD": found.workload,
        "MESHD_EVENT": found.event,
        journal.ADMITTED: "yes",
    }
    known = {key: value for key, value in extra.items() if value}
    _log.log(level, "%s", found.text, extra=known)
