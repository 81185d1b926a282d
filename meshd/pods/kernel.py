"""System calls for which Python 3.11 has no function. Every failure is an OSError."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
_MNT_DETACH: Final = 0x2
_OPENAT2: Final = 437
"""The number of openat2(2) on all machines; libc has no function for it."""
_RESOLVE_NO_MAGICLINKS: Final = 0x2
_RESOLVE_BENEATH: Final = 0x8
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    """How openat2(2) opens: ``struct open_how``."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), "unshare")


def enter(descriptor: int, kind: int) -> None:
    """Have this thread join the namespace, of the kind of one of the CLONE_NEW flags."""
    _checked(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    number = ctypes.c_ulong(flags)
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, number, options.encode() or None
    )
    _checked(result, f"mount on {target}")


def unmount(target: str) -> None:
    _checked(_libc.umount2(target.encode(), _MNT_DETACH), f"unmount {target}")


def become_subreaper() -> None:
    """Become the parent of orphans below this process, prctl(2)."""
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def forbid_new_privileges() -> None:
    """Forbid this process and its children to gain anything from set-uid bits or file
    capabilities."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def open_beneath(directory: int, path: str) -> int:
    """Open a place (O_PATH) of an open directory, whatever links others may have put there: it is
    EXDEV where one leads out of the directory, openat2(2)."""
    flags = os.O_PATH | os.O_CLOEXEC
    how = _OpenHow(flags=flags, resolve=_RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    number = ctypes.c_long(_OPENAT2)
    found = _libc.syscall(number, directory, os.fsencode(path), ctypes.byref(how), size)
    _checked(min(found, 0), f"open {path}")
    return found


def mounts_below(directory: Path) -> tuple[str, ...]:
    """Return the mount points in a directory, the innermost first; proc(5), mountinfo."""
    points = [_unescaped(line.split()[4]) for line in _mountinfo()]
    return tuple(point for point in reversed(points) if Path(point).is_relative_to(directory))


def namespace_mounts() -> tuple[str, ...]:
    """Return the bind mounts that hold namespaces."""
    split = (line.partition(" - ") for line in _mountinfo())
    return tuple(_unescaped(head.split()[4]) for head, _, tail in split if tail.startswith("nsfs "))


def _mountinfo() -> list[str]:
    return Path("/proc/thread-self/mountinfo").read_text(encoding="utf-8").splitlines()


def _unescaped(point: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, character)
    return point


def processes_in(namespace: Path) -> tuple[int, ...]:
    """Return the processes whose network namespace is the one held at a path."""
    try:
        wanted = namespace.stat().st_ino
    except FileNotFoundError:
        return ()
    found: list[int] = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            # It may end while we look.
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{entry.name}/ns/net").st_ino == wanted:  # noqa: PTH116
                    found.append(int(entry.name))
    return tuple(found)


def handles_sigterm(pid: int) -> bool:
    """Return whether a process has a handler for SIGTERM; the first of a PID namespace else ignores
    it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) & (1 << 14))  # bit 14 is signal 15
