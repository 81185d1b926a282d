"""The supervisor: starts meshd's processes in order, keeps them running, and ends them in order."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from meshd import wire
from meshd.base import journal, tasks
from meshd.base.errors import MeshdError
from meshd.model.pool import Pool
from meshd.proxy.machine import sized
from meshd.resolver.command import is_resolver
from meshd.settings import Settings, load
from meshd.supervisor import answering, record
from meshd.supervisor.account import Account
from meshd.supervisor.fetching import Fetching
from meshd.supervisor.home import Home
from meshd.supervisor.limits import Told
from meshd.supervisor.member import Bootstrap, Maker
from meshd.supervisor.members import Members
from meshd.supervisor.notify import feed_watchdog, notify
from meshd.supervisor.privileges import Users
from meshd.supervisor.probing import Probing
from meshd.supervisor.reload import Consequence, consequence
from meshd.supervisor.roles import Roles
from meshd.supervisor.service import proxy_slice
from meshd.wire import channel

_log = logging.getLogger(__name__)
_DRAIN_LIMIT: Final = 2.5
"""Seconds for the proxies to finish what they are doing when all of meshd stops."""
_GET_READY: Final = 15.0
"""Seconds for the roles to answer before systemd is told that we run anyway."""


class Supervisor:
    """The supervisor's children and requests to it.

    ``roles``: command lines by name, of which the settings choose; ``answers``: the roles that have
    a socket. ``environment``: the variables of all children.
    """

    def __init__(
        self,
        settings: Settings,
        home: Home,
        users: Users,
        roles: Mapping[str, Sequence[str]],
        make_bootstrap: Bootstrap | None = None,
        *,
        environment: Mapping[str, str],
        answers: Collection[str] = (),
    ) -> None:
        self._home = home
        self._settings = settings
        self._answers = answers
        self._slice = proxy_slice(os.environ)
        self._following: asyncio.Task[None] | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._users = users
        self._stopping = asyncio.Event()
        self._account = Account(home)
        self._told = Told()
        native = {journal.NATIVE: "1"} if journal.goes_to_journal(os.environ) else {}
        self._roles = Roles(
            roles,
            settings=settings,
            home=home,
            environment={**environment, **native},
            slice_name=self._slice,
            stopping=self._stopping,
            changed=self._changed,
        )
        self._maker = Maker(
            home=home,
            users=users,
            settings=settings,
            environment=environment,
            slice_name=self._slice,
            make_bootstrap=make_bootstrap,
        )
        self._probing = Probing(home.paths, users.uids)
        self._fetching = Fetching(environment)
        self._pools = {pool: Members(pool, self._maker, self._changed) for pool in Pool}

    async def live(self) -> None:
        """Run until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._told.tell(self._settings.proxy)
        left = record.read(self._home)
        for members in self._pools.values():
            members.adopt(entry for entry in left if entry.proxy)
        await self._roles.adopt(left)
        for name in self._answers:
            self._home.paths.socket(name).unlink(missing_ok=True)
        server = await self._listen()
        self._roles.start()
        keeping = [
            *(tasks.keep(one.keep, f"the pool {pool}") for pool, one in self._pools.items()),
            tasks.keep(feed_watchdog, "feeding the watchdog"),
            tasks.keep(self._get_ready, "waiting for the roles"),
        ]
        try:
            await self._stopping.wait()
        finally:
            notify(STOPPING=1)
            server.close()
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            await self._end()

    async def _listen(self) -> asyncio.Server:
        path = self._home.paths.socket("supervisor")
        session = channel.answering(self.handle)
        telemetry = self._users.telemetry.uid
        return await channel.listen(
            path,
            wire.SUPERVISOR,
            session,
            uids={0, self._users.meshd.uid, telemetry},
            only={telemetry: (wire.Children,)},
        )

    async def _get_ready(self) -> None:
        """Wait until every role answers; units ordered after meshd may then rely on them."""
        sockets = (self._home.paths.socket(name) for name in self._answers)
        silent = await answering.wait_for(sockets, _GET_READY)
        notify(READY=1)
        late = ", ".join(path.stem for path in silent)
        text = "meshd runs in %s" + (f", but these do not answer yet: {late}" if late else "")
        journal.event(_log, logging.INFO, "started", text, self._home.paths.run)

    async def handle(self, request: wire.ToSupervisor) -> wire.Message:
        """Raises MeshdError."""
        match request:
            case wire.Children():
                proxies = (one for members in self._pools.values() for one in members.states)
                return wire.ChildStates((*self._roles.states, *proxies))
            case wire.RestartRoles():
                following = self._read_settings()
                names = following.restart.union(request.names)
                await self._follow(dataclasses.replace(following, restart=names))
                return wire.Done()
            case wire.ReloadNames():
                await self._roles.reload_names()
                return wire.Done()
            case wire.RunProbe(command, seconds, workload):
                return wire.Probed(await self._probing.passes(command, seconds, workload))
            case wire.FetchKeys():
                return await self._fetching.keys(request, self._settings.issuers)
            case wire.ReplacePool():
                await self._replace()
                return wire.Done()

    async def _end(self) -> None:
        """End all children, the proxies first: they still need the roles and resolvers to finish.

        Proxies with a slice of their own go on, and so do the resolvers.
        """
        if self._slice:
            await self._roles.stop(but=set(filter(is_resolver, self._roles.names)))
        else:
            await self._pools[Pool.TRAFFIC].stop(_DRAIN_LIMIT)
            await asyncio.gather(self._roles.stop(), self._pools[Pool.DNS].stop(0))
        for name in ("supervisor", *self._roles.names):
            self._home.paths.socket(name).unlink(missing_ok=True)
        if not self._slice:
            self._home.record.unlink(missing_ok=True)

    def _reload(self) -> None:
        try:
            following = self._read_settings()
        except MeshdError as error:
            journal.event(_log, logging.ERROR, "settings", "settings unchanged: %s", error)
            return
        if following != Consequence():
            tasks.start(self._follow(following), "following changed settings")

    def _read_settings(self) -> Consequence:
        """Put the settings of the file in force and return what that requires.

        Raises MeshdError: the settings stay as they were.
        """
        path = self._home.paths.settings
        settings = sized(load(path))
        journal.event(_log, logging.INFO, "settings", "settings read again from %s", path)
        self._told.tell(settings.proxy)
        before = self._settings
        self._settings = self._roles.settings = self._maker.settings = settings
        for members in self._pools.values():
            members.resize()
        return consequence(before, settings, self._roles.names)

    async def _follow(self, following: Consequence) -> None:
        """Restart roles and wait for them; proxies are replaced after that, without a pause in
        traffic.

        Raises InvalidInputError if there is no such role.
        """
        await self._roles.restart(following.restart)
        if following.replace:
            tasks.start(self._replace_or_complain(), "replacing the proxies")

    async def _replace_or_complain(self) -> None:
        try:
            await self._replace()
        except MeshdError as error:
            journal.event(_log, logging.ERROR, "settings", "%s", error)

    async def _replace(self) -> None:
        """Raises NotReadyError."""
        for members in self._pools.values():
            await members.replace()

    def _changed(self) -> None:
        """Record and report that a child's state has changed."""
        pools = self._pools.values()
        roles, proxies = self._roles, (one for members in pools for one in members.entries)
        self._account.record((*roles.entries, *proxies))
        live, size = sum(one.live for one in pools), sum(one.size for one in pools)
        running = f"{len(roles.entries)} of {len(roles.names)} roles run"
        self._account.tell(f"{running}, {live} of {size} proxies live")
