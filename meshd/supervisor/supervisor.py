"""The supervisor: starts meshd's processes in order, keeps them, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from meshd import channel, journal, wire
from meshd.budget import Limits
from meshd.errors import InvalidInputError, MeshdError
from meshd.model.pool import Pool
from meshd.resolver.command import NAME as RESOLVER
from meshd.settings import Paths, ProxySettings, Settings, load
from meshd.supervisor import home as houses
from meshd.supervisor import record
from meshd.supervisor.child import Policy
from meshd.supervisor.home import Home
from meshd.supervisor.members import Bootstrap, Members
from meshd.supervisor.notify import feed_watchdog, notify
from meshd.supervisor.output import File, Output, Pipe
from meshd.supervisor.privileges import Role, Users, role_command
from meshd.supervisor.process import Process
from meshd.supervisor.resolver import Resolver, pass_on
from meshd.supervisor.runner import Runner
from meshd.supervisor.service import proxy_slice, rejoin_proxies

_log = logging.getLogger(__name__)
_DRAIN_LIMIT: Final = 2.5
"""Seconds for the proxies to finish what they are doing when all of meshd stops."""
_ROLE_GRACE: Final = 1.2
"""Seconds for a role to end by itself. With the above, all have ended within five."""
_ANSWERING: Final = frozenset({"capture", "identity", "mesh"})
"""Roles that have a socket, by which registrars and meshctl need them."""
_GET_READY: Final = 15.0
"""Seconds for the roles to answer before systemd is told that we run anyway."""
_LOOK_AGAIN: Final = 0.02
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TZ", "MESHD_HOME", "PYTHONPATH")
"""Environment variables that children see. Whatever else is in ours is none of their business."""


class Supervisor:
    """``roles``: command lines by name; the resolver's is made of the settings at each start.

    ``answers``: those of them that have a socket.
    """

    def __init__(
        self,
        settings: Settings,
        home: Home,
        users: Users,
        roles: Mapping[str, Sequence[str]],
        make_bootstrap: Bootstrap | None = None,
        *,
        answers: Collection[str] = (),
    ) -> None:
        self._home = home
        self._settings = settings
        self._answers = answers
        self._slice = proxy_slice(os.environ)
        self._reloading: asyncio.Task[None] | None = None
        self._users = users
        self._stopping = asyncio.Event()
        self._recorded: tuple[record.Entry, ...] = ()
        self._told = ""
        environment = child_environment(os.environ)
        native = {journal.NATIVE: "1"} if journal.goes_to_journal(os.environ) else {}
        self._commands = roles
        self._resolver = Resolver(home.paths.resolver_run, self._slice)
        self._environment = environment | native
        self._roles = [self._make(name) for name in roles]
        self._pools = {
            pool: Members(
                pool,
                home=home,
                users=users,
                settings=settings,
                environment=environment,
                changed=self._changed,
                make_bootstrap=make_bootstrap,
                slice_name=self._slice,
            )
            for pool in Pool
        }

    def _make(self, name: str) -> Runner:
        return Runner(
            name,
            command=lambda: self._command(name),
            environment=self._environment,
            output=self._output(name),
            policy=Policy(grace=_ROLE_GRACE),
            changed=self._changed,
        )

    def _output(self, name: str) -> Output:
        if name == RESOLVER:
            return File(self._home.log(name), pass_on)
        return Pipe(lambda line: journal.relay(name, line))

    def _command(self, name: str) -> Sequence[str]:
        """Raises MeshdError."""
        return self._resolver.command(self._settings) if name == RESOLVER else self._commands[name]

    async def live(self) -> None:
        """Until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        left = record.read(self._home)
        for members in self._pools.values():
            members.adopt(entry for entry in left if entry.proxy)
        kept = self._adopt_resolver(left)
        await _end_all(entry for entry in left if not entry.proxy and entry != kept)
        for name in self._answers:
            self._home.paths.socket(name).unlink(missing_ok=True)
        server = await self._listen()
        for role in self._roles:
            role.start()
        keeping = [
            *(asyncio.create_task(members.keep()) for members in self._pools.values()),
            asyncio.create_task(feed_watchdog()),
            asyncio.create_task(self._get_ready()),
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

    async def _get_ready(self) -> None:
        """Until every role answers; who is ordered after us may then rely on them."""
        sockets = [self._home.paths.socket(name) for name in self._answers]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GET_READY):
                while sockets:
                    sockets = [path for path in sockets if not await _answers(path)]
                    await asyncio.sleep(_LOOK_AGAIN if sockets else 0)
        notify(READY=1)
        late = ", ".join(path.stem for path in sockets)
        text = "meshd runs in %s" + (f", but these do not answer yet: {late}" if late else "")
        journal.event(_log, logging.INFO, "started", text, self._home.paths.run)

    async def handle(self, request: wire.AnyMessage) -> wire.Message:
        """Raises MeshdError."""
        match request:
            case wire.Children():
                roles = (role.status for role in self._roles)
                proxies = (one for members in self._pools.values() for one in members.states)
                return wire.ChildStates((*roles, *proxies))
            case wire.RestartRoles():
                await self._restart(request.names)
                return wire.Done()
            case wire.ReloadNames():
                await self._reload_names()
                return wire.Done()
            case wire.ReplacePool():
                await self._replace()
                return wire.Done()
            case _:
                raise InvalidInputError(f"the supervisor does not answer {type(request).__name__}")

    async def _restart(self, names: Iterable[str]) -> None:
        """Raises InvalidInputError when there is no role of a name."""
        if unknown := set(names) - self._commands.keys():
            raise InvalidInputError(f"there is no role {', '.join(sorted(unknown))} here")
        old = [role for role in self._roles if role.name in names]
        for role in old:
            role.stop()
        await asyncio.gather(*(role.stopped() for role in old))
        self._roles = [self._make(one.name) if one in old else one for one in self._roles]
        for role in self._roles:
            if role.name in names and not self._stopping.is_set():
                role.start()

    def _adopt_resolver(self, left: Iterable[record.Entry]) -> record.Entry | None:
        found = self._resolver.to_adopt(left, self._settings)
        for role in self._roles:
            if found and role.name == RESOLVER and role.adopt(found.identity, found.since):
                return found
        return None

    async def _reload_names(self) -> None:
        if self._resolver.is_outdated:
            await self._restart({RESOLVER} & self._commands.keys())
            return
        for role in self._roles:
            if role.name == RESOLVER:
                role.read_again()

    async def _listen(self) -> asyncio.Server:
        path = self._home.paths.socket("supervisor")
        session = channel.answering(self.handle)
        server = await channel.listen(path, session, uids={0, self._users.meshd.uid})
        os.chown(path, 0, self._users.meshd.gid)
        return server

    async def _end(self) -> None:
        """The proxies first, who still need the roles to finish what they are doing, and names.

        Unless they have a slice of their own: then they go on, and so does the resolver.
        """
        stopping: list[Awaitable[None]] = []
        if not self._slice:
            await self._pools[Pool.TRAFFIC].stop(_DRAIN_LIMIT)
            stopping.append(self._pools[Pool.DNS].stop(0))
        ending = [role for role in self._roles if not (self._slice and role.name == RESOLVER)]
        for role in ending:
            role.stop()
        await asyncio.gather(*stopping, *(role.stopped() for role in ending))
        for name in ("supervisor", *(role.name for role in self._roles)):
            self._home.paths.socket(name).unlink(missing_ok=True)
        if not self._slice:
            self._home.log(RESOLVER).unlink(missing_ok=True)
            self._home.record.unlink(missing_ok=True)

    def _reload(self) -> None:
        path = self._home.paths.settings
        try:
            settings = load(path)
        except MeshdError as error:
            journal.event(_log, logging.ERROR, "settings", "settings stay as they were: %s", error)
            return
        journal.event(_log, logging.INFO, "settings", "settings read again from %s", path)
        before, self._settings = self._settings, settings
        for members in self._pools.values():
            members.resize(settings)
        if before != settings:
            self._reloading = asyncio.create_task(self._follow(before, settings))

    async def _follow(self, before: Settings, settings: Settings) -> None:
        """Replace what reads its settings at its start. Traffic goes on meanwhile."""
        unconcerned = {RESOLVER} if before.mesh == settings.mesh else set[str]()
        await self._restart(self._commands.keys() - unconcerned)
        if fixed(before.proxy) != fixed(settings.proxy) or before.node != settings.node:
            try:
                await self._replace()
            except MeshdError as error:
                journal.event(_log, logging.ERROR, "settings", "%s", error)

    async def _replace(self) -> None:
        """Raises NotReadyError."""
        for members in self._pools.values():
            await members.replace()

    def _changed(self) -> None:
        """A child's state is another: write down what the next supervisor must know."""
        roles = (
            record.Entry(role.name, role.identity, role.since, False)
            for role in self._roles
            if role.identity.pid
        )
        proxies = (one for members in self._pools.values() for one in members.entries)
        entries = (*roles, *proxies)
        if entries != self._recorded:
            try:
                record.write(self._home, entries)
                self._recorded = entries
            except OSError as error:
                journal.event(_log, logging.ERROR, "record", "%s: %s", self._home.record, error)
        running = sum(1 for role in self._roles if role.identity.pid)
        text = (
            f"{running} of {len(self._roles)} roles run,"
            f" {sum(members.live for members in self._pools.values())}"
            f" of {sum(members.size for members in self._pools.values())} proxies live"
        )
        if text != self._told:
            self._told = text
            notify(STATUS=text)


def fixed(proxy: ProxySettings) -> ProxySettings:
    """What a proxy that runs cannot change; how many there are is no part of it."""
    return msgspec.structs.replace(proxy, count=0)


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


async def _end_all(entries: Iterable[record.Entry]) -> None:
    """End roles that an earlier supervisor left."""
    await asyncio.gather(*(_end_one(entry) for entry in entries))


async def _end_one(entry: record.Entry) -> None:
    gone = asyncio.Event()
    process = Process.adopt(entry.identity, lambda _: gone.set())
    if process is None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ROLE_GRACE):
                await gone.wait()
                return


def child_environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {name: ours[name] for name in _PASSED_ON if name in ours}


def usual_roles(users: Users) -> dict[str, Sequence[str]]:
    # -P: what lies in the working directory is not imported.
    python = (sys.executable, "-P", "-m", "meshd")
    ours = {role.value: role_command(role, users, (*python, role.value)) for role in Role}
    return {**ours, RESOLVER: ()}


def main() -> int:
    """The process's whole life; one line says why it could not begin."""
    try:
        supervise(Paths.from_environment(), usual_roles)
    except MeshdError as error:
        print(f"meshd: {error}", file=sys.stderr)
        return 1
    return 0


def supervise(
    paths: Paths,
    roles: Callable[[Users], Mapping[str, Sequence[str]]],
    make_bootstrap: Bootstrap | None = None,
) -> None:
    """Until SIGTERM or SIGINT. Raises MeshdError when it cannot begin."""
    houses.check_machine()
    home = Home(paths)
    rejoin_proxies(home)
    settings = load(paths.settings)
    limits = Limits(settings.log.lines_per_second, settings.log.bytes_per_second)
    journal.setup("supervisor", settings.log_level, limits=limits)
    users = houses.find_users(settings)
    houses.make_directories(home, users)

    async def live() -> None:
        chosen = dict(roles(users))
        if settings.role != "server":
            chosen.pop(Role.SERVER.value, None)
        answers = chosen.keys() & _ANSWERING
        await Supervisor(settings, home, users, chosen, make_bootstrap, answers=answers).live()

    with houses.only_one(home):
        asyncio.run(live())
