"""Programs that the configuration names as probes, run with the rights of their workload.

The author of a manifest chooses the program, so it never runs as one of meshd's users or as root:
it runs as the user, and in the namespaces, of the workload's own process. A workload that runs as
root, or as one of meshd's users, lends only its namespaces, and the program gets a user that nobody
else has. The program runs in a control group of its own below the workload's: whatever it started
ends with it, in any session and under any parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import pwd
import random
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path
from typing import Final

from meshd.base.errors import InvalidInputError, NotReadyError
from meshd.settings import Paths
from meshd.supervisor import probe_place
from meshd.supervisor.probe_place import Place

_LONGEST: Final = 60.0
"""Seconds that a program may take, whatever its probe says."""
_AT_ONCE: Final = 8
"""Programs that run at a time; further ones wait for their turn, within their time."""
_NOBODYS: Final = range(61184, 65520)
"""Uids that systemd lends to units for as long as they run: systemd.exec(5), DynamicUser=."""
_LIMITS: Final = ("--as=536870912", "--nofile=256", "--core=0", "--fsize=67108864")
"""prlimit(1). Bytes of memory, files, bytes of a core, bytes of a file."""
_CAPABILITIES: Final = "+sys_admin,+sys_chroot,+sys_ptrace,+setuid,+setgid"
"""What nsenter(1) needs. A program that does not run as root has none of them."""
_KILLED: Final = 5.0
"""Seconds for programs that were killed to end."""
_LOOK: Final = 0.01
"""Seconds between looks whether they have."""


def command_line(command: Sequence[str], place: Place, cgroup: Path) -> tuple[str, ...]:
    """Return the command line. Pure but for our own pid.

    The control group comes first and the user last: each step gives up what later ones do not need.
    """
    # By way of this process, so that the program inherits none of them.
    entered = (f"--{option}=/proc/{os.getpid()}/fd/{fd}" for option, fd in place.descriptors)
    return (
        *("sh", "-ec", 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"', "sh", str(cgroup)),
        *("prlimit", *_LIMITS, "--"),
        *("setpriv", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all"),
        *(f"--bounding-set=-all,{_CAPABILITIES}", "--"),
        *("nsenter", *entered, f"--setuid={place.uid}", f"--setgid={place.gid}", "--"),
        *command,
    )


class Probing:
    """Runs probes. ``ours`` are the uids of meshd's processes; no program ever runs as one of
    them."""

    def __init__(self, paths: Paths, ours: Collection[int]) -> None:
        self._paths = paths
        self._ours = frozenset(ours)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._numbers = itertools.count()

    async def passes(self, command: Sequence[str], seconds: float, workload: str) -> bool:
        """Return whether the program ends with status 0 within ``seconds``; a longer one is killed.
        It is killed when it takes longer.

        Raises InvalidInputError, or NotReadyError when no such workload is captured or runs.
        """
        if not command or any("\0" in part for part in command):
            raise InvalidInputError("a probe's command is a program and its arguments")
        try:
            async with asyncio.timeout(min(max(seconds, 1.0), _LONGEST)), self._turns:
                home = await asyncio.to_thread(probe_place.look, self._paths, workload)
                with probe_place.entered(home) as place:
                    return await self._succeeds(command, self._lent(place))
        except TimeoutError:
            return False

    def _lent(self, place: Place) -> Place:
        if place.uid != 0 and place.uid not in self._ours:
            return place
        uid = _nobodys_uid()
        return dataclasses.replace(place, uid=uid, gid=uid)

    async def _succeeds(self, command: Sequence[str], place: Place) -> bool:
        nothing = asyncio.subprocess.DEVNULL
        name = f"meshd-exec-{os.getpid()}-{next(self._numbers)}"
        async with _bounded(place.cgroup / name) as cgroup:
            child = await asyncio.create_subprocess_exec(
                *command_line(command, place, cgroup),
                stdin=nothing,
                stdout=nothing,
                stderr=nothing,
                start_new_session=True,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                cwd="/",
            )
            try:
                return await child.wait() == 0
            finally:
                if child.returncode is None:
                    child.kill()  # it may not have entered the group yet


@contextlib.asynccontextmanager
async def _bounded(cgroup: Path) -> AsyncGenerator[Path]:
    """Make a control group that ends with all that is in it. Raises NotReadyError."""
    try:
        cgroup.mkdir()
    except OSError as error:
        raise NotReadyError(
            f"{cgroup}: cannot be made, so a probe cannot be bounded: {error.strerror}"
        ) from None
    try:
        yield cgroup
    finally:
        await asyncio.shield(_end(cgroup))


async def _end(cgroup: Path) -> None:
    with contextlib.suppress(TimeoutError, FileNotFoundError):
        async with asyncio.timeout(_KILLED):
            while True:
                (cgroup / "cgroup.kill").write_text("1", encoding="ascii")
                with contextlib.suppress(OSError):
                    cgroup.rmdir()
                    return
                await asyncio.sleep(_LOOK)


def _nobodys_uid() -> int:
    while True:
        uid = random.choice(_NOBODYS)  # noqa: S311 - it is not a secret
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid
