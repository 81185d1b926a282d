"""Files that exist as a whole or not at all, whatever stops the process or the machine.

Each step is a method of its own, so that tests can stop between any two.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

TEMPORARY: Final = ".new"
"""Ends the names of files that are being written."""


class Disk:
    """The steps of writing a file; all raise OSError."""

    def create(self, path: Path, mode: int) -> int:
        """Return a descriptor of a new, empty file, in place of one that a dead process left."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)

    def write(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)


def write_whole(
    disk: Disk, path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True
) -> None:
    """Replace the file at once; if ``durable``, it survives a power cut when this returns.

    Raises OSError: then the file is as it was.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        descriptor = disk.create(temporary, mode)
        try:
            disk.write(descriptor, data)
            if durable:
                disk.sync(descriptor)
        finally:
            os.close(descriptor)
        disk.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_directory(disk, path.parent)


def sync_directory(disk: Disk, path: Path) -> None:
    """Sync a directory, so that changes of names survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.sync(descriptor)
    finally:
        os.close(descriptor)
