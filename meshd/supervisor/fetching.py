"""Has a stranger ask an issuer for its keys: a process that has no file of ours, and ends soon.

The mesh role names the URL only. Which addresses may be asked is in the settings, which it cannot
change.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

from meshd import wire
from meshd.base.errors import UNDECODABLE
from meshd.model.issuer import KeyAnswer, KeyQuestion, Reach
from meshd.settings import IssuerSettings
from meshd.supervisor.privileges import stranger_command

_AT_ONCE: Final = 4
"""Processes at a time; further questions wait for their turn."""
_LONGEST: Final = 60.0
"""Seconds for one answer, whatever is asked for."""
_SPARE: Final = 5.0
"""Seconds for the process to begin and to end."""
_MOST: Final = 1024 * 1024
"""Bytes of what the process says."""
_LIMITS: Final = ("--as=1073741824", "--nofile=64", "--core=0", "--fsize=0")
"""prlimit(1). Bytes of memory, files, bytes of a core, bytes of a file."""


class Fetching:
    """Asks for keys. ``environment``: the variables of the process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def keys(self, request: wire.FetchKeys, settings: IssuerSettings) -> wire.FetchedKeys:
        """Return the keys that a URL has, or why it has none."""
        seconds = min(max(request.seconds, 0.1), _LONGEST)
        question = KeyQuestion(
            request.url,
            seconds,
            Reach(settings.allowed_networks, settings.refused_networks),
            settings.authorities,
        )
        async with self._turns:
            answer = await self._ask(question)
        return wire.FetchedKeys(answer.keys, answer.problem)

    async def _ask(self, question: KeyQuestion) -> KeyAnswer:
        limited = ("prlimit", *_LIMITS, "--", sys.executable, "-P", "-m", "meshd.roles.fetch")
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            *stranger_command(limited),
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env=dict(self._environment),
            cwd="/",
            limit=_MOST,
        )
        try:
            async with asyncio.timeout(question.seconds + _SPARE):
                return await _said(child, question)
        except TimeoutError:
            return KeyAnswer(problem="the process that asks for it takes too long")
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _said(child: asyncio.subprocess.Process, question: KeyQuestion) -> KeyAnswer:
    assert child.stdin is not None  # noqa: S101  (they are pipes)
    assert child.stdout is not None  # noqa: S101
    with contextlib.suppress(ConnectionError):
        child.stdin.write(msgspec.json.encode(question))
        child.stdin.close()
    parts: list[bytes] = []
    while part := await child.stdout.read(65536):
        parts.append(part)
        if sum(map(len, parts)) > _MOST:
            return KeyAnswer(problem="the process that asks for it says too much")
    try:
        return msgspec.json.decode(b"".join(parts), type=KeyAnswer)
    except UNDECODABLE:
        return KeyAnswer(problem="the process that asks for it has failed")
