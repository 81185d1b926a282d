"""Carries out enrollments and their ends, each in a task of its own.

The invariant: nothing is done of a request before its intent is in the journal, and the intent
stays there until all is done. So it does not matter when this process ends: the next one begins
with the first step of each intent that it finds, and every step can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

from meshd import wire
from meshd.base import journal, tasks
from meshd.base.backoff import Backoff
from meshd.base.errors import MeshdError, SystemRefusedError, UnreachableError
from meshd.node.enrollment_steps import Steps
from meshd.node.in_progress import InProgress
from meshd.workloads import intent as intents
from meshd.workloads.intent import Action, Intent, Step

_BACKOFF: Final = Backoff(0.2, 5.0)
"""Between attempts at a step."""
_REMEMBERED: Final = 100
"""Requests that have ended, of which whoever waits can still ask."""
_log: Final = logging.getLogger(__name__)


class Journal(Protocol):
    """The intents on disk."""

    def load(self) -> Mapping[str, Intent]: ...

    async def write(self, intents: Callable[[], Mapping[str, Intent]]) -> None:
        """Write the intents that there are by then. Raises SystemRefusedError: nothing has
        changed."""
        ...


class Enrolling:
    """All requests that have not ended. ``boot`` tells the present run of the machine."""

    def __init__(self, kept: Journal, steps: Steps, boot: str, backoff: Backoff = _BACKOFF) -> None:
        self._journal = kept
        self._steps = steps
        self._boot = boot
        self._backoff = backoff
        self._entries: dict[str, InProgress] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[int, InProgress] = {}
        self._admitting = asyncio.Lock()
        self._changed = asyncio.Condition()

    def intents(self) -> dict[str, Intent]:
        """Return what is to be in the journal."""
        return {key: one.intent for key, one in self._entries.items() if not one.is_over}

    def statuses(self) -> tuple[wire.EnrollmentStatus, ...]:
        return tuple(one.status for _, one in sorted(self._entries.items()))

    def resume(self) -> None:
        """Begin with what the journal holds."""
        for key, found in self._journal.load().items():
            intent = intents.resumed(found, self._boot)
            text = "%s is taken up again: meshd was ended before it was done"
            journal.event(_log, logging.WARNING, "enrollment", text, intents.what(intent))
            self._entries[key] = InProgress(intent, time.time())
            self._start(key)

    async def close(self) -> None:
        """Stop in the middle of whatever is being done; the next process goes on with it."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # ---- requests

    async def request(self, wanted: Intent) -> wire.Progress:
        """Begin with an intent, unless just that is being done. Raises MeshdError: then nothing has
        changed."""
        key = wanted.key
        async with self._admitting:
            before = self._entries.get(key)
            if before and intents.is_same(before.intent, wanted):
                return before.progress
            intents.refuse_conflicts(wanted, (one.intent for one in self._entries.values()))
            await self._stop(key)
            before = self._entries.get(key)
            self._entries[key] = entry = InProgress(wanted, time.time())
            try:
                await self._journal.write(self.intents)
            except SystemRefusedError as error:
                if before:
                    self._entries[key] = before
                    self._start(key)
                else:
                    del self._entries[key]
                raise SystemRefusedError(f"{error}; nothing was done") from error
            if before:
                self._remember(before)
                await self._tell(lambda: before.end(f"{intents.place(wanted)} is unenrolled"))
            self._start(key)
            return entry.progress

    async def progress(self, question: wire.Await) -> wire.Progress:
        """Return how far a request is, at the latest when the time of the question is over."""
        entry = self._find(question.number)
        if entry is None:
            return wire.Progress(number=question.number, finished=True, known=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(question.seconds), self._changed:
                await self._changed.wait_for(lambda: entry.progress.state != question.seen)
        return entry.progress

    def _find(self, number: int) -> InProgress | None:
        own = (one for one in self._entries.values() if one.intent.number == number)
        return next(own, self._ended.get(number))

    def _remember(self, entry: InProgress) -> None:
        self._ended[entry.intent.number] = entry
        while len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]

    # ---- what is done

    def _start(self, key: str) -> None:
        entry = self._entries[key]
        name = intents.what(entry.intent)
        self._tasks[key] = tasks.keep(lambda: self._run(key, entry), name, entry.meet)

    async def _stop(self, key: str) -> None:
        if task := self._tasks.pop(key, None):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _tell(self, note: Callable[[], None]) -> None:
        """Change how far a request is, and tell whoever waits for that."""
        note()
        async with self._changed:
            self._changed.notify_all()

    async def _run(self, key: str, entry: InProgress) -> None:
        failure = ""
        if entry.intent.action in {Action.ENROLL, Action.PREPARE}:
            failure = await self._attempt(entry)
        if entry.intent.action in {Action.UNDO, Action.UNENROLL}:
            failure = await self._insist(entry)
        await self._tell(entry.conclude)
        await self._until_done(entry, lambda: self._journal.write(self.intents))
        del self._entries[key]
        self._tasks.pop(key, None)
        self._remember(entry)
        self._report(entry.intent, failure)
        await self._tell(lambda: entry.end(failure))

    def _report(self, intent: Intent, failure: str) -> None:
        level = logging.WARNING if failure else logging.INFO
        text = f"%s: {'%s' if failure else 'done%s'}"
        journal.event(
            _log, level, "enrollment", text, intents.what(intent), failure, workload=intent.uid
        )

    async def _attempt(self, entry: InProgress) -> str:
        """Carry out the steps; return what has failed.

        What cannot be enrolled becomes an intent to undo it.
        """
        for step in intents.steps(entry.intent):
            await self._tell(lambda step=step: entry.begin(step))
            try:
                await self._try(entry, step)
            except MeshdError as error:
                if not intents.is_undone_after(entry.intent, step):
                    return str(error) if intents.is_failed_by(entry.intent, step) else ""
                entry.intent = intents.undoing(entry.intent, str(error))
                # If that cannot be written, the next process would enroll it: both are whole.
                with contextlib.suppress(SystemRefusedError):
                    await self._journal.write(self.intents)
                return ""
        return ""

    async def _try(self, entry: InProgress, step: Step) -> None:
        """Carry out a step, again if whoever does it is not there for a while, but no longer than
        the request says. Raises MeshdError."""
        seconds = entry.intent.timeout
        deadline = time.monotonic() + seconds
        failures = 0
        while True:
            try:
                remarks = await self._steps.carry_out(step, entry.intent, seconds)
            except UnreachableError as error:
                if time.monotonic() > deadline:
                    raise
                failures += 1
                await self._wait(entry, error, failures)
            else:
                await self._tell(lambda remarks=remarks: entry.remark(remarks))
                return

    async def _insist(self, entry: InProgress) -> str:
        """Carry out the steps, each until it is done; return what users are told of that."""
        failures: list[str] = []
        for step in intents.steps(entry.intent):
            await self._tell(lambda step=step: entry.begin(step))
            carry_out = self._once if intents.is_best_effort(step) else self._repeatedly
            failures += await carry_out(entry, step)
        if entry.intent.action is Action.UNDO:
            return intents.outcome(entry.intent)
        return f"unenrolled, but: {'; '.join(failures)}" if failures else ""

    async def _repeatedly(self, entry: InProgress, step: Step) -> list[str]:
        remarks: list[str] = []

        async def carry_out() -> None:
            remarks.extend(await self._steps.carry_out(step, entry.intent, 0.0))

        await self._until_done(entry, carry_out)
        await self._tell(lambda: entry.remark(remarks))
        return []

    async def _once(self, entry: InProgress, step: Step) -> list[str]:
        """Carry out a step; return why that failed."""
        failures = 0
        while True:
            try:
                await self._steps.carry_out(step, entry.intent, 0.0)
            except UnreachableError as error:
                failures += 1
                await self._wait(entry, error, failures)
            except MeshdError as error:
                return [str(error)]
            else:
                return []

    async def _until_done(self, entry: InProgress, action: Callable[[], Awaitable[object]]) -> None:
        failures = 0
        while True:
            try:
                await action()
            except MeshdError as error:
                failures += 1
                await self._wait(entry, error, failures)
            else:
                return

    async def _wait(self, entry: InProgress, error: MeshdError, failures: int) -> None:
        """Note why a step is not done, and wait before the next attempt."""
        if entry.progress.problem != str(error):
            await self._tell(lambda: entry.meet(str(error)))
            text, what = "%s is not finished: %s", intents.what(entry.intent)
            journal.event(
                _log, logging.WARNING, "enrollment", text, what, error, workload=entry.intent.uid
            )
        await asyncio.sleep(self._backoff.pause(failures))
