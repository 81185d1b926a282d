"""Programs that the configuration names as probes, run with the rights of the workload they probe.

Whoever may write a manifest chooses the program, so it never runs as one of meshd's users, nor as
root: it runs as the user, and in the namespaces and the cgroup, of the workload's own process. A
workload that has none, or runs as root, lends its place only, and the program gets a user that
nobody else has.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pwd
import random
import signal
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from meshd.errors import InvalidInputError, NotReadyError

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
"""Seconds for a program that was killed to end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a program is to run. ``pid`` 0: nowhere in particular."""

    uid: int
    gid: int
    pid: int = 0
    cgroup: str = ""
    """Its directory; empty: ours."""


def command_line(command: Sequence[str], place: Place) -> tuple[str, ...]:
    """Pure. The cgroup first and the user last: each step gives up what later ones do not need."""
    user = (f"--setuid={place.uid}", f"--setgid={place.gid}")
    entered = (
        ("nsenter", f"--target={place.pid}", "--net", "--mount", "--root", "--wd", *user, "--")
        if place.pid
        else ("setpriv", f"--reuid={place.uid}", f"--regid={place.gid}", "--clear-groups", "--")
    )
    moved = (
        ("sh", "-ec", 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"', "sh", place.cgroup)
        if place.cgroup
        else ()
    )
    return (
        *moved,
        *("prlimit", *_LIMITS, "--"),
        *("setpriv", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all"),
        *(f"--bounding-set=-all,{_CAPABILITIES}", "--"),
        *entered,
        *command,
    )


class Probing:
    """``ours``: uids of meshd's processes, as none of which a program ever runs."""

    def __init__(self, ours: Collection[int]) -> None:
        self._ours = frozenset(ours)
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def passes(self, command: Sequence[str], seconds: float, cgroup: str, netns: str) -> bool:
        """Whether it ends with status 0 within ``seconds``. It is killed when it takes longer.

        Raises InvalidInputError, or NotReadyError when the workload's place is not there.
        """
        if not command or any("\0" in part for part in (*command, cgroup, netns)):
            raise InvalidInputError("a probe's command is a program and its arguments")
        try:
            async with asyncio.timeout(min(max(seconds, 1.0), _LONGEST)), self._turns:
                place = await asyncio.to_thread(self._place, cgroup, netns)
                return await _succeeds(command_line(command, place), place)
        except TimeoutError:
            return False

    def _place(self, cgroup: str, netns: str) -> Place:
        pid = next(_in_cgroup(cgroup) if cgroup else _in_namespace(netns), 0)
        if not pid:
            raise NotReadyError("no process of the workload runs, so its probe cannot")
        uid, gid = _user_of(pid)
        if uid == 0 or uid in self._ours:
            uid = gid = _nobodys_uid()
        return Place(uid, gid, pid, _cgroup_of(pid))


async def _succeeds(argv: Sequence[str], place: Place) -> bool:
    nothing = asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *argv,
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
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILLED):
                    await asyncio.shield(child.wait())
        if place.uid in _NOBODYS:
            _kill_all_of(place.uid)


def _kill_all_of(uid: int) -> None:
    """What left the session, too: nobody else has that uid."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            if _user_of(pid)[0] == uid:
                os.kill(pid, signal.SIGKILL)


def _nobodys_uid() -> int:
    while True:
        uid = random.choice(_NOBODYS)  # noqa: S311 - it is not a secret
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _in_namespace(netns: str) -> Iterator[int]:
    """Processes in a network namespace, those of other users than root first."""
    try:
        wanted = Path(netns).stat()
    except OSError:
        return
    found: list[tuple[bool, int]] = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            here = Path(f"/proc/{pid}/ns/net").stat()
            if (here.st_dev, here.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append((_user_of(pid)[0] == 0, pid))
    yield from (pid for _, pid in sorted(found))


def _in_cgroup(path: str) -> Iterator[int]:
    """Processes in a cgroup of version 2 or below it, those of other users than root first."""
    root = _cgroup_root()
    top = root / path
    if ".." in Path(path).parts or not top.is_relative_to(root):
        return
    found: list[tuple[bool, int]] = []
    for processes in sorted(top.rglob("cgroup.procs")):
        with contextlib.suppress(OSError):
            for line in processes.read_text(encoding="ascii").split():
                found.append((_user_of(int(line))[0] == 0, int(line)))
    yield from (pid for _, pid in sorted(found))


def _cgroup_root() -> Path:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(place)
    raise NotReadyError("no cgroup2 hierarchy is mounted")


def _cgroup_of(pid: int) -> str:
    """Its directory in the hierarchy of version 2; empty when it is in none."""
    with contextlib.suppress(OSError, NotReadyError):
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::/"):
                directory = _cgroup_root() / line.removeprefix("0::/")
                return str(directory) if (directory / "cgroup.procs").exists() else ""
    return ""


def _user_of(pid: int) -> tuple[int, int]:
    """Real uid and gid. Raises OSError when it has ended."""
    uid = gid = 0
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("Uid:"):
            uid = int(line.split()[1])
        if line.startswith("Gid:"):
            gid = int(line.split()[1])
    return uid, gid
