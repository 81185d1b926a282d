"""Locks by which processes of meshd exclude each other within one network namespace.

They are files where only root makes and opens any. What others can open too, such as the namespace
itself or the name of an abstract socket, others can lock or take first. The directory is the
machine's, whatever ``MESHD_HOME`` says: two nodes may be in one namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules.inside import own_cookie

DIRECTORY: Final = Path("/run/meshd-locks")
RULES: Final = "rules"
"""Of who reads and writes the host's rules at this moment."""
KEEPER: Final = "keeper"
"""Of the process that keeps them: two would undo each other's for ever."""


@contextlib.contextmanager
def locked(name: str, directory: Path = DIRECTORY) -> Generator[None]:
    """Hold the lock of this name in this namespace within the block. It may block.

    Raises SystemRefusedError if there can be no such lock.
    """
    path = directory / f"{name}-{own_cookie()}"
    descriptor = None
    while descriptor is None:
        descriptor = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        _release(path, descriptor)


class Claim:
    """A lock that one process holds for as long as it lives, or until it releases it."""

    def __init__(self, name: str, directory: Path = DIRECTORY) -> None:
        self._path = directory / f"{name}-{own_cookie()}"
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock; False: another process has it. Raises SystemRefusedError."""
        while self._descriptor is None:
            try:
                self._descriptor = _lock(self._path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            _release(self._path, self._descriptor)
            self._descriptor = None


def _make(directory: Path) -> None:
    """Raises SystemRefusedError."""
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        there = directory.lstat()
    except FileNotFoundError:
        return  # whoever had the last lock in it has removed it: it is tried anew
    except OSError as error:
        raise SystemRefusedError(f"{directory}: cannot be made: {error.strerror}") from None
    if there.st_uid != 0 or there.st_mode & 0o077:
        raise SystemRefusedError(f"{directory}: must be root's and nobody else's; remove it")


def _lock(path: Path, operation: int) -> int | None:
    """Lock a file; None: its former owner has removed it, so try again.

    Raises SystemRefusedError, or BlockingIOError where ``operation`` does not wait.
    """
    _make(path.parent)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, operation)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _release(path: Path, descriptor: int) -> None:
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # others have locks there, or nothing is left of us
    os.close(descriptor)
