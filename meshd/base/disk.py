"""Files that exist as a whole or not at all, whatever stops the process or the machine.

Each step is a method of its own, so that tests can stop between any two.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError

TEMPORARY: Final = ".new"
"""Ends the names of files that are being written."""


class Disk:
    """The steps of writing a file; all raise OSError."""

    def create(self, path: Path, mode: int) -> int:
        """Return a descriptor of a new, empty file, in place of one that a dead process left."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, mode)  # whatever the umask
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)


def replace(
    path: Path,
    content: bytes,
    mode: int = 0o600,
    *,
    durable: bool = True,
    disk: Disk | None = None,
) -> bool:
    """Replace a file as ``write_whole`` does; one that is to last gets a directory, too. Return
    whether it lasts as it should. Raises SystemRefusedError; then the file is as it was."""
    disk = disk or Disk()
    try:
        if durable:
            path.parent.mkdir(parents=True, exist_ok=True)
        _put_in_place(disk, path, content, mode, durable=durable)
    except OSError as error:
        raise refused(path, error) from None
    if durable:
        try:
            sync_directory(disk, path.parent)
        except OSError:
            return (
                False  # the new content is there, and in force: to call it refused would be wrong
            )
    return True


def refused(path: Path, error: OSError) -> SystemRefusedError:
    return SystemRefusedError(f"{path}: cannot be written: {error.strerror}")


def write_whole(
    disk: Disk, path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True
) -> None:
    """Replace the file at once; if ``durable``, it survives a power cut when this returns.

    Raises OSError: then the file is as it was, or has the new content, which may not survive.
    """
    _put_in_place(disk, path, data, mode, durable=durable)
    if durable:
        sync_directory(disk, path.parent)


def temporary(path: Path) -> Path:
    """Return the path of a file while it is being written."""
    return path.with_name(f".{path.name}{TEMPORARY}")


def _put_in_place(disk: Disk, path: Path, data: bytes, mode: int, *, durable: bool) -> None:
    """Replace the file at once. Raises OSError: then the file is as it was."""
    new = temporary(path)
    try:
        descriptor = disk.create(new, mode)
        try:
            disk.write(descriptor, data)
            if durable:
                disk.sync(descriptor)
        finally:
            os.close(descriptor)
        disk.rename(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def sync_directory(disk: Disk, path: Path) -> None:
    """Sync a directory, so that changes of names survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
