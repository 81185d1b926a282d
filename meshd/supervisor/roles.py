"""The roles and the resolvers as the supervisor's children: started, restarted, ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from meshd import wire
from meshd.base import journal
from meshd.base.errors import InvalidInputError
from meshd.resolver.command import is_for_wildcards, is_resolver
from meshd.settings import Settings
from meshd.supervisor.child import Policy
from meshd.supervisor.home import Home
from meshd.supervisor.output import File, Output, Pipe
from meshd.supervisor.process import Process
from meshd.supervisor.record import Entry
from meshd.supervisor.reload import chosen
from meshd.supervisor.resolver import Resolver, pass_on
from meshd.supervisor.runner import Runner

_GRACE: Final = 1.2
"""Seconds for a role to end by itself. With what the proxies have, all have ended within five."""

_POLICY: Final = Policy(grace=_GRACE, orderly=1.0)
"""A role that ends by itself to begin anew does so when what it put in force has killed nobody."""


class Roles:
    """The children that are not proxies.

    ``offered``: command lines by name, of which the settings choose; those of resolvers are made at
    each start. ``stopping``: once it is set, nothing is started again.
    """

    def __init__(
        self,
        offered: Mapping[str, Sequence[str]],
        *,
        settings: Settings,
        home: Home,
        environment: Mapping[str, str],
        slice_name: str,
        stopping: asyncio.Event,
        changed: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._offered = offered
        self._home = home
        self._environment = environment
        self._stopping = stopping
        self._changed = changed
        self._resolver = Resolver(home.paths.resolver_run, slice_name)
        self._runners = [self._make(name) for name in self._commands]

    @property
    def _commands(self) -> Mapping[str, Sequence[str]]:
        return {**chosen(self._offered, self.settings), **self._resolver.commands}

    def _make(self, name: str) -> Runner:
        return Runner(
            name,
            command=lambda: self._command(name),
            environment=self._environment,
            output=self._output(name),
            policy=self._resolver.policy if is_resolver(name) else _POLICY,
            changed=self._changed,
        )

    def _output(self, name: str) -> Output:
        if is_resolver(name):
            return File(name, lambda line: pass_on(name, line))
        return Pipe(lambda line: journal.relay(name, line))

    def _command(self, name: str) -> Sequence[str]:
        """Raises MeshdError."""
        if is_resolver(name):
            return self._resolver.command(name, self.settings)
        return self._commands[name]

    # ---- what is so

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._commands)

    @property
    def states(self) -> tuple[wire.RoleStatus, ...]:
        return tuple(runner.status for runner in self._runners)

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(
            Entry(runner.name, runner.identity, runner.since, False)
            for runner in self._runners
            if runner.identity.pid
        )

    # ---- what is to be

    async def adopt(self, left: Iterable[Entry]) -> None:
        """Go on with the resolvers that an earlier supervisor left, and end its roles."""
        left = [entry for entry in left if not entry.proxy]
        kept = self._adopt_resolvers(left)
        await asyncio.gather(*(_end(entry) for entry in left if entry not in kept))

    def _adopt_resolvers(self, left: Sequence[Entry]) -> list[Entry]:
        """Adopt the running resolvers that can go on, and return them."""
        kept: list[Entry] = []
        for runner in self._runners:
            if not is_resolver(runner.name):
                continue
            found = self._resolver.to_adopt(runner.name, left, self.settings)
            if found and runner.adopt(found.identity, found.since):
                kept.append(found)
        return kept

    def start(self) -> None:
        for runner in self._runners:
            runner.start()

    async def restart(self, names: Iterable[str]) -> None:
        """Restart roles, and start or end others as the settings require.

        Raises InvalidInputError if there is no role of a name.
        """
        beginning, wanted = set(names), self._commands
        if unknown := beginning - wanted.keys():
            raise InvalidInputError(f"there is no role {', '.join(sorted(unknown))} here")
        staying = wanted.keys() - beginning
        old = [runner for runner in self._runners if runner.name not in staying]
        for runner in old:
            runner.stop()
        await asyncio.gather(*(runner.stopped() for runner in old))
        for name in {runner.name for runner in old} - wanted.keys():
            self._home.paths.socket(name).unlink(missing_ok=True)
        kept = {runner.name: runner for runner in self._runners if runner not in old}
        self._runners = [kept.get(name) or self._make(name) for name in wanted]
        for runner in self._runners:
            if runner.name not in kept and not self._stopping.is_set():
                runner.start()

    async def reload_names(self) -> None:
        """Have the resolvers read their new files, and start or end resolvers of namespaces."""
        wanted, before = self.names, list(self._runners)
        outdated = {name for name in wanted if self._resolver.is_outdated(name)}
        if outdated or wanted != frozenset(runner.name for runner in before):
            await self.restart(outdated)
        # After that: it may not hand on what the other one has not read. Who has just been started
        # reads it anyway, and may not have come so far as to know the signal.
        for runner in self._runners:
            if runner in before and is_resolver(runner.name) and not is_for_wildcards(runner.name):
                runner.read_again()

    async def stop(self, *, but: Collection[str] = ()) -> None:
        """Wait until all have ended, except those of these names."""
        ending = [runner for runner in self._runners if runner.name not in but]
        for runner in ending:
            runner.stop()
        await asyncio.gather(*(runner.stopped() for runner in ending))


async def _end(entry: Entry) -> None:
    """End a role that an earlier supervisor left."""
    gone = asyncio.Event()
    process = Process.adopt(entry.identity, lambda _: gone.set())
    if process is None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        process.signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await gone.wait()
                return
