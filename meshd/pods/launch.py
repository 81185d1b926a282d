"""Starts a container's process: its namespaces, its mounts, its user, and then its program.

``start`` forks twice: the first child enters the pod's network namespace and makes the others, the
second is their first process (so that all processes of a container end with it). The caller must
be a child subreaper, to become the parent of the second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from meshd.base.errors import SystemRefusedError
from meshd.pods import kernel
from meshd.pods.mounts import Mount, mount_volumes, open_sources

APP_DIRECTORY: Final = "/srv/app"
"""Where a container sees its image's folder, so that it need not reach it on the host."""
_TMPFS: Final = kernel.MS_NOSUID | kernel.MS_NODEV
_TMP: Final = Path("/tmp")  # noqa: S108
_CANNOT_RUN: Final = 127
"""The shell's exit status for a command that cannot be run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A process to start."""

    netns: Path
    hostname: str
    user: int
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    working_directory: str
    files: Mapping[str, Path]
    """What to find at a path (/etc/resolv.conf) in place of the host's file."""
    hidden: tuple[Path, ...]
    """Directories that the process sees empty."""
    mounts: tuple[Mount, ...] = ()


def start(task: Task, log: Path) -> int:
    """Return the pid of the new process, a child of this one, when it runs its program.

    Raises SystemRefusedError with the reason, which is in the log too, if it cannot run.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.fchown(output, task.user, 0)
        first = os.fork()
        if first == 0:
            _run_first(task, output, writer)
        os.close(writer)
        writer = -1
        answer = _read_all(reader)
        os.waitpid(first, 0)
    finally:
        for descriptor in (output, reader, writer):
            if descriptor >= 0:
                os.close(descriptor)
    pid, _, reason = answer.partition("\n")
    if pid and not reason:
        return int(pid)
    if pid:
        os.waitpid(int(pid), 0)
    raise SystemRefusedError(reason or "the child that starts a container was killed")


def _read_all(reader: int) -> str:
    """Read what the children write, until the last of them has become another program."""
    parts: list[bytes] = []
    while part := os.read(reader, 4096):
        parts.append(part)
    return b"".join(parts).decode(errors="replace")


def _run_first(task: Task, output: int, writer: int) -> NoReturn:
    status = 1
    try:
        _redirect(output)
        namespace = os.open(task.netns, os.O_RDONLY | os.O_CLOEXEC)
        kernel.enter(namespace, kernel.CLONE_NEWNET)
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWUTS)
        told, tell = os.pipe2(os.O_CLOEXEC)
        second = os.fork()
        if second == 0:
            os.close(tell)
            os.read(told, 1)  # until the pid has been told
            _run_second(task, writer)
        os.write(writer, f"{second}\n".encode())
        status = 0
    except OSError as error:
        _tell(writer, str(error), "\n")
    finally:
        os._exit(status)


def _run_second(task: Task, writer: int) -> NoReturn:
    try:
        os.setsid()
        socket.sethostname(task.hostname)
        _mount(task)
        _drop(task.user)
        for directory in (task.working_directory, APP_DIRECTORY if task.directory else "", "/"):
            with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
                os.chdir(directory)
                break
        os.execvpe(task.command[0], task.command, dict(task.environment))  # noqa: S606
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        _tell(writer, f"cannot run {task.command[0]}: {reason}")
    finally:
        os._exit(_CANNOT_RUN)


def _redirect(output: int) -> None:
    """Set signals and descriptors as a program expects them."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in {signal.SIG_DFL, None}:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.umask(0o022)


def _mount(task: Task) -> None:
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    for point in kernel.namespace_mounts():
        # A copy of the mount here would keep another pod's namespace alive.
        with contextlib.suppress(OSError):
            kernel.unmount(point)
    volumes = open_sources(task.mounts)
    image = os.open(task.directory, os.O_PATH | os.O_CLOEXEC) if task.directory else None
    for target, source in task.files.items():
        if Path(target).exists():
            kernel.mount(str(source), target, flags=kernel.MS_BIND)
    if image is not None:
        app = Path(APP_DIRECTORY)
        kernel.mount("tmpfs", str(app.parent), "tmpfs", _TMPFS, "mode=755,size=64k")
        app.mkdir()
        kernel.mount(f"/proc/self/fd/{image}", str(app), flags=kernel.MS_BIND)
    for directory in task.hidden:
        if directory.is_dir():
            flags = _TMPFS | kernel.MS_NOEXEC | kernel.MS_RDONLY
            kernel.mount("tmpfs", str(directory), "tmpfs", flags, "mode=555,size=4k")
    _mount_tmp()
    mount_volumes(volumes)
    kernel.mount("proc", "/proc", "proc", _TMPFS | kernel.MS_NOEXEC)


def _mount_tmp() -> None:
    """Mount a /tmp of the container's own.

    A Python environment below /tmp from which we run stays visible: images may be mapped to its
    programs.
    """
    ours = Path(sys.prefix)
    held = os.open(ours, os.O_PATH | os.O_CLOEXEC) if ours.is_relative_to(_TMP) else None
    kernel.mount("tmpfs", str(_TMP), "tmpfs", _TMPFS, "mode=1777,size=64m")
    if held is not None:
        ours.mkdir(parents=True, mode=0o755)
        kernel.mount(f"/proc/self/fd/{held}", str(ours), flags=kernel.MS_BIND)


def _drop(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    kernel.forbid_new_privileges()


def _tell(writer: int, reason: str, head: str = "") -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"testbed: {reason}\n".encode())
        os.write(writer, f"{head}{reason}".encode())


def inside(pid: int, user: int, command: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line that runs a command beside a running process, as its user."""
    return (
        "nsenter",
        f"--target={pid}",
        *("--mount", "--uts", "--net", "--pid", "--"),
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
        *("--no-new-privs", "--inh-caps=-all", "--"),
        *("env", "-C", "/proc/1/cwd"),
        *command,
    )
