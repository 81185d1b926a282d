"""Pins: a bind mount of each workload's network namespace, so that it stays while it is needed.

A pin is DIRECTORY/UID@MOMENT. It survives this process; whoever starts next finds it with
``list_pins``. The moment makes the path of each pin a new one: a proxy that still drains a listener
takes its socket over to the next one with the same address, and the path is part of the address.

What a path leads to is asked once only. A process's number in it, or its name, may be another
namespace's later, which must not come by the identity of the workload that was there before.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import time
from pathlib import Path
from typing import Final

from meshd.base.errors import InvalidInputError, NotReadyError, SystemRefusedError
from meshd.capture.rules.inside import cookie_of, open_namespace
from meshd.model.workload import LONGEST_PINNED

_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2
_UID: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._:-]{{0,{LONGEST_PINNED - 1}}}")
_SEPARATOR: Final = "@"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Pin:
    path: Path
    inode: int
    """Tells one namespace from another."""


class Pins:
    """The pins below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._cookies: dict[str, int] = {}
        """Of those that were pinned without one."""

    def find(self, uid: str) -> Pin | None:
        """Raises InvalidInputError when the uid is not safe as a file name."""
        for path in self._paths(uid):
            status = _status(path)
            if status and _is_namespace(status):
                return Pin(path, status.st_ino)
        return None

    def pin(self, uid: str, source: Path, cookie: int = 0) -> Pin:
        """Hold the namespace that ``cookie`` says (0: the first one found at ``source``).

        A pin of that one counts, whatever ``source`` leads to by now. Raises NotReadyError or
        InvalidInputError when there is none, and ``source`` does not lead there either.
        """
        pinned = self.find(uid)
        if pinned and cookie and cookie_of(pinned.path) not in {0, cookie}:
            self.unpin(uid)
            pinned = None
        return pinned or self._pin(uid, source, cookie)

    def _pin(self, uid: str, source: Path, cookie: int) -> Pin:
        descriptor = open_namespace(source)
        try:
            # The descriptor, not the path: that might lead elsewhere by now.
            held = Path(f"/proc/self/fd/{descriptor}")
            found, wanted = cookie_of(held), cookie or self._cookies.get(uid, 0)
            if wanted and found not in {0, wanted}:
                raise NotReadyError(moved(source))
            self._cookies[uid] = found
            path = self.directory / f"{uid}{_SEPARATOR}{time.time_ns():x}"
            self._mount(held, path)
            return Pin(path, os.fstat(descriptor).st_ino)
        finally:
            os.close(descriptor)

    def unpin(self, uid: str) -> None:
        """Let go. Nothing happens where there is no pin."""
        self._cookies.pop(uid, None)
        for path in self._paths(uid):
            while (status := _status(path)) and _is_namespace(status):
                if _libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
                    raise SystemRefusedError(
                        f"cannot unmount {path}: {os.strerror(ctypes.get_errno())}"
                    )
            path.unlink(missing_ok=True)

    def list_pins(self) -> tuple[str, ...]:
        """Return the uids that have a pin, or the file of an unfinished one."""
        if not self.directory.is_dir():
            return ()
        names = (path.name.partition(_SEPARATOR) for path in self.directory.iterdir())
        return tuple(sorted({uid for uid, found, _ in names if found and _UID.fullmatch(uid)}))

    def _paths(self, uid: str) -> tuple[Path, ...]:
        if not _UID.fullmatch(uid):
            raise InvalidInputError(
                f"workload uid {uid!r} is not usable as a file name; use at most {LONGEST_PINNED}"
                " letters, digits, . _ : and -"
            )
        return tuple(self.directory.glob(f"{uid}{_SEPARATOR}*"))

    def _mount(self, source: Path, path: Path) -> None:
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.touch(mode=0o444)
        if _libc.mount(os.fsencode(source), os.fsencode(path), b"none", _MS_BIND, None) != 0:
            reason = os.strerror(ctypes.get_errno())
            path.unlink(missing_ok=True)
            raise SystemRefusedError(f"cannot pin a network namespace at {path}: {reason}")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def moved(source: Path) -> str:
    """Return the message for a ``source`` that leads to another namespace than it did."""
    return (
        f"another network namespace than the workload's is at {source} now, and is not in the mesh;"
        " enroll it, or unenroll the workload"
    )


def is_elsewhere(pin: Pin, source: Path) -> bool:
    """Return whether ``source`` leads to another namespace than the pinned one, or nowhere."""
    status = _status(source)
    return status is not None and _is_namespace(status) and status.st_ino != pin.inode


def _is_namespace(status: os.stat_result) -> bool:
    # All namespaces are files of one file system, nsfs.
    return status.st_dev == Path("/proc/self/ns/net").stat().st_dev
