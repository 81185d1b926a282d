"""Pins: a bind mount of each workload's network namespace, so that it stays while it is needed.

A pin is DIRECTORY/UID@MOMENT. It survives this process; whoever starts next finds it with
``list_pins``. The moment makes the path of each pin a new one: a proxy that still drains a listener
takes its socket over to the next one with the same address, and the path is part of the address.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import time
from pathlib import Path
from typing import Final

from meshd.capture.inside import open_namespace
from meshd.errors import InvalidInputError, NotReadyError, SystemRefusedError

_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2
_UID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,220}")
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
        self._known: dict[str, Pin] = {}

    def find(self, uid: str) -> Pin | None:
        """Raises InvalidInputError when the uid is not safe as a file name."""
        for path in self._paths(uid):
            status = _status(path)
            if status and _is_namespace(status):
                return Pin(path, status.st_ino)
        return None

    def pin(self, uid: str, source: Path) -> Pin:
        """Hold the namespace at ``source``. A pin of another one is replaced.

        Where ``source`` is gone, or has become something that cannot be captured, the pin that
        exists counts. Raises NotReadyError or InvalidInputError when there is none either.
        """
        known = self._known.get(uid)
        if known is None or not _is_held(known, source):
            known = self._known[uid] = self._pin(uid, source)
        return known

    def _pin(self, uid: str, source: Path) -> Pin:
        pinned = self.find(uid)
        try:
            descriptor = open_namespace(source)
        except (NotReadyError, InvalidInputError):
            if pinned:
                return pinned
            raise
        try:
            wanted = os.fstat(descriptor).st_ino
            if pinned and pinned.inode == wanted:
                return pinned
            if pinned:
                self.unpin(uid)
            path = self.directory / f"{uid}{_SEPARATOR}{time.time_ns():x}"
            self._mount(descriptor, path)
        finally:
            os.close(descriptor)
        return Pin(path, wanted)

    def unpin(self, uid: str) -> None:
        """Let go. Nothing happens where there is no pin."""
        self._known.pop(uid, None)
        for path in self._paths(uid):
            while (status := _status(path)) and _is_namespace(status):
                if _libc.umount2(os.fsencode(path), _MNT_DETACH) != 0:
                    raise SystemRefusedError(
                        f"cannot unmount {path}: {os.strerror(ctypes.get_errno())}"
                    )
            path.unlink(missing_ok=True)

    def list_pins(self) -> tuple[str, ...]:
        """The uids that have a pin, or the file of one that was not finished."""
        if not self.directory.is_dir():
            return ()
        names = (path.name.partition(_SEPARATOR) for path in self.directory.iterdir())
        return tuple(sorted({uid for uid, found, _ in names if found and _UID.fullmatch(uid)}))

    def _paths(self, uid: str) -> tuple[Path, ...]:
        if not _UID.fullmatch(uid):
            raise InvalidInputError(
                f"workload uid {uid!r} is not usable as a file name; use letters, digits, . _ and -"
            )
        return tuple(self.directory.glob(f"{uid}{_SEPARATOR}*"))

    def _mount(self, descriptor: int, path: Path) -> None:
        self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.touch(mode=0o444)
        # The descriptor, not the path: that might lead elsewhere by now.
        source = f"/proc/self/fd/{descriptor}".encode()
        if _libc.mount(source, os.fsencode(path), b"none", _MS_BIND, None) != 0:
            reason = os.strerror(ctypes.get_errno())
            path.unlink(missing_ok=True)
            raise SystemRefusedError(f"cannot pin a network namespace at {path}: {reason}")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_held(pin: Pin, source: Path) -> bool:
    """Whether both lead to the namespace that the pin was made for. Asked at each probe."""
    try:
        held, wanted = pin.path.stat(), source.stat()
    except OSError:
        return False
    return held.st_ino == pin.inode and os.path.samestat(held, wanted)


def _is_namespace(status: os.stat_result) -> bool:
    # All namespaces are files of one file system, nsfs.
    return status.st_dev == Path("/proc/self/ns/net").stat().st_dev
