"""Runs coroutines as tasks whose failures are seen: by the caller that waits, or in the journal.

``asyncio.create_task`` is called nowhere else: a task that nobody waits for fails in silence, and
whatever relied on it looks healthy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from meshd.base.backoff import Backoff

_AGAIN: Final = Backoff(0.5, 30.0)
"""Between a failure by a fault of meshd and the next attempt."""
_running: Final[set[asyncio.Task[None]]] = set()
_log: Final = logging.getLogger(__name__)


async def first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Run coroutines side by side until the first ends, and end the others.

    Raises what the first raises. It remembers that it was cancelled though one of them fails at
    that moment, which ``asyncio.TaskGroup`` does not.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task that nobody waits for. A failure is logged with its ``name``."""
    task = asyncio.create_task(work, name=name)
    _running.add(task)  # the loop itself does not hold it
    task.add_done_callback(_seen)
    return task


def keep(
    work: Callable[[], Coroutine[Any, Any, None]],
    name: str,
    failed: Callable[[str], None] = lambda _: None,
) -> asyncio.Task[None]:
    """Start a task that begins again when it fails, until it ends by itself or is cancelled.

    A failure is logged, the same one only once; ``failed`` is called with each.
    """
    return start(_kept(work, name, failed), name)


async def _kept(
    work: Callable[[], Coroutine[Any, Any, None]], name: str, failed: Callable[[str], None]
) -> None:
    failures, said = 0, ""
    while True:
        try:
            return await work()
        except Exception as error:
            failures += 1
            if said != (said := repr(error)):
                _complain(name, error)
            failed(f"{name} failed, by a fault of meshd: {error!r}")
        await asyncio.sleep(_AGAIN.pause(failures))


def _seen(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()):
        _complain(task.get_name(), error)


def _complain(name: str, error: BaseException) -> None:
    text = "%s failed, by a fault of meshd: %r"
    _log.error(text, name, error, exc_info=error, extra={"MESHD_EVENT": "fault"})
