"""Carries out what the life cycle of one child decides: the shell around ``child``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from meshd import wire
from meshd.base import journal, tasks
from meshd.base.errors import MeshdError
from meshd.supervisor.child import Act, Child, Event, Policy, State, step
from meshd.supervisor.output import Output
from meshd.supervisor.process import Identity, Process, describe

_log = logging.getLogger(__name__)
_NOT_RUNNING: Final = Identity(0, 0)


class Runner:
    """One child by name. ``command`` is called at each start, and may raise MeshdError."""

    def __init__(
        self,
        name: str,
        *,
        command: Callable[[], Sequence[str]],
        environment: Mapping[str, str],
        output: Output,
        policy: Policy,
        changed: Callable[[], None],
        drain: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.child = Child()
        self.identity = _NOT_RUNNING
        self.since = 0.0
        self.problem = ""
        self._command = command
        self._environment = environment
        self._output = output
        self._policy = policy
        self._changed = changed
        self._drain = drain
        self.restarts = 0
        self._process: Process | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._draining: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._killed_for = ""

    @property
    def status(self) -> wire.RoleStatus:
        settled = time.time() - self.since >= self._policy.settled
        steady = self.child.state is State.RUNNING and settled
        return wire.RoleStatus(
            name=self.name,
            pid=self.identity.pid,
            state=self.child.state.value,
            restarts=self.restarts,
            since=self.since,
            problem="" if steady else self.problem,
        )

    def start(self) -> None:
        self._feed(Event.START)

    def adopt(self, identity: Identity, since: float) -> bool:
        """Take on a process that an earlier supervisor started; False when it is gone."""
        process = Process.adopt(identity, self._ended)
        if process is None:
            return False
        self._process, self.identity, self.since = process, identity, since
        self._output.resume(identity.pid)
        self._feed(Event.ADOPT)
        journal.event(_log, logging.INFO, "adopted", "%s goes on (pid %d)", self.name, identity.pid)
        return True

    def stop(self, drain_limit: float | None = None) -> None:
        """Ask the child to end, after ``drain_limit`` seconds even if it is not drained."""
        self._feed(Event.STOP)
        if drain_limit is not None:
            asyncio.get_running_loop().call_later(drain_limit, self._feed, Event.DRAINED)

    def kill(self, reason: str) -> None:
        """Kill the child at once and log the ``reason``; it is started again unless it was to
        end."""
        self._killed_for = reason
        self._signal(signal.SIGKILL)

    def read_again(self) -> None:
        """Have it read its files again, as programs do that were told so by SIGHUP."""
        self._signal(signal.SIGHUP)

    async def stopped(self) -> None:
        await self._stopped.wait()

    def _feed(self, event: Event, lived: float = 0.0) -> None:
        following = step(self.child, event, self._policy, lived=lived)
        if following is None:
            return
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self.child = following.child
        if following.timer is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(following.timer, self._feed, Event.TIMER)
        self._do(following.act)
        if self.child.state is State.STOPPED:
            self._stopped.set()
        self._changed()

    def _do(self, act: Act) -> None:
        match act:
            case Act.SPAWN:
                self._spawn()
            case Act.DRAIN:
                self._draining = tasks.start(self._drained(), f"draining {self.name}")
            case Act.TERMINATE:
                self._signal(signal.SIGTERM)
            case Act.KILL:
                journal.event(
                    _log,
                    logging.WARNING,
                    "killed",
                    "%s did not exit in time; sent SIGKILL",
                    self.name,
                )
                self._signal(signal.SIGKILL)
            case Act.NOTHING:
                pass

    def _spawn(self) -> None:
        self.since = time.time()
        try:
            command = self._command()
            stderr = self._output.open()
            try:
                self._process = Process.spawn(command, self._environment, stderr, self._ended)
            finally:
                os.close(stderr)
        except (MeshdError, OSError) as error:
            # Not from within the step that led here.
            asyncio.get_running_loop().call_soon(self._failed, str(error))
            return
        self.identity = self._process.identity

    def _failed(self, reason: str) -> None:
        self._exited(reason)

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            self._process.signal(number)

    async def _drained(self) -> None:
        if self._drain:
            with contextlib.suppress(MeshdError):
                await self._drain()
        self._feed(Event.DRAINED)

    def _ended(self, status: int | None) -> None:
        self._output.finish()
        said = self._output.last.removeprefix(f"meshd {self.name}: ").removeprefix("meshd proxy: ")
        own = said if said and status is not None and status > 0 else describe(status)
        reason, self._killed_for = self._killed_for or own, ""
        self._exited(reason, Event.ENDED if status == 0 else Event.EXITED)

    def _exited(self, reason: str, event: Event = Event.EXITED) -> None:
        pid, lived = self.identity.pid, time.time() - self.since
        self._process, self.identity = None, _NOT_RUNNING
        if self._draining:
            self._draining.cancel()
        if self.child.state is State.RUNNING:
            # What is missing is told once, not at each attempt to begin.
            told = not pid and reason == self.problem
            self.problem = reason
            self.restarts += 1
            self._feed(event, lived)
            journal.event(
                *(_log, logging.DEBUG if told else logging.ERROR),
                *("failed", "%s (pid %d) is started again: %s"),
                *(self.name, pid, reason),
            )
        else:
            self._feed(Event.EXITED, lived)
