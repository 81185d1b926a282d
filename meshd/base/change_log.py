"""Files that begin with the whole of some state and go on with changes of it, a line each.

A change costs what it is long, not what the state is large. The file is written as a whole again
once its changes are longer than the whole.

Each change is appended by one write, and, where the file is to survive a power cut, synced before
it counts. A process that is killed leaves at most one line without its end, which nobody was told
is stored: reading leaves it out. So it does if a power cut has left zeros there. Whatever else does
not fit its checksum is damaged. What cannot be appended, since the disk is full, is cut off again;
if not even that is possible, the next write replaces the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from meshd.base import disk
from meshd.base.disk import Disk
from meshd.base.errors import InvalidInputError

_LEAST: Final = 64 * 1024
"""Bytes of changes that are appended to any file before it is written anew."""
_FIRST: Final = re.compile(rb"\n(?=[+\0])")
"""Ends the whole. No line of it begins with + or zero: it is JSON."""
_LINE: Final = re.compile(rb"\+([0-9a-f]{8}) (.+)", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """The content of a file."""

    whole: bytes
    changes: tuple[bytes, ...] = ()
    is_cut: bool = False
    """The last change was not written to its end; it is none of ``changes``."""


def parse(data: bytes) -> Content:
    """Return the content of a file. Raises InvalidInputError if a change is damaged."""
    end = _FIRST.search(data)
    if end is None:
        return Content(data)
    *lines, rest = data[end.end() :].split(b"\n")
    is_cut = bool(rest)
    if lines and not rest and b"\0" in lines[-1]:
        lines, is_cut = lines[:-1], True
    return Content(data[: end.start()], tuple(map(_change, lines)), is_cut)


def _change(line: bytes) -> bytes:
    found = _LINE.fullmatch(line)
    if found is None or line_of(found[2]) != line + b"\n":
        raise InvalidInputError("a change does not fit its checksum")
    return found[2]


def line_of(change: bytes) -> bytes:
    """Return the line of a change, which is JSON without line breaks."""
    return b"+%08x %s\n" % (zlib.crc32(change), change)


class ChangeLog:
    """One file, which nobody else writes. Not for several threads at once."""

    def __init__(self, path: Path, *, durable: bool = True, on: Disk | None = None) -> None:
        """Know nothing of the file yet. ``durable``: what is written survives a power cut."""
        self._path = path
        self._durable = durable
        self._disk = on or Disk()
        self._left: tuple[int, int] | None = None
        """The inode and the size that this process has left; None: the next write replaces all."""
        self._whole_size = 0

    def replace(self, whole: bytes) -> None:
        """Write the whole. Raises SystemRefusedError; then the file is as it was."""
        self._left = None
        whole = whole if whole.endswith(b"\n") else whole + b"\n"
        if disk.replace(self._path, whole, durable=self._durable, disk=self._disk):
            with contextlib.suppress(OSError):
                self._left = self._path.stat().st_ino, len(whole)
            self._whole_size = len(whole)

    def append(self, change: bytes, whole: Callable[[], bytes]) -> None:
        """Append a change, which is JSON in one line. ``whole`` returns the state after it, which
        is written if the file is not as it was left, or has become long. Raises SystemRefusedError;
        then the file is as it was, or has an unfinished line that reading leaves out."""
        line = line_of(change)
        limit = 2 * self._whole_size + _LEAST
        if self._left is None or self._left[1] + len(line) > limit or not self._appended(line):
            self.replace(whole())

    def _appended(self, line: bytes) -> bool:
        """Append a line if the file is as it was left; return whether it was. Raises
        SystemRefusedError."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            found = os.fstat(descriptor)
            if (found.st_ino, found.st_size) != self._left:
                return False
            self._left = None
            self._write(descriptor, line, found.st_size)
            self._left = found.st_ino, found.st_size + len(line)
        except OSError as error:
            raise disk.refused(self._path, error) from None
        finally:
            os.close(descriptor)
        return True

    def _write(self, descriptor: int, line: bytes, size: int) -> None:
        """Raises OSError, with the line cut off again if that is possible."""
        try:
            self._disk.write(descriptor, line)
            if self._durable:
                self._disk.sync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.truncate(descriptor, size)
            raise

    def settle(self, whole: Callable[[], bytes]) -> None:
        """Write the whole if the file has changes, whoever has appended them. Raises
        SystemRefusedError; then the file is as it was."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return
        if _FIRST.search(data):
            self.replace(whole())

    def remove(self) -> None:
        """Remove the file. Raises OSError."""
        self._left = None
        self._path.unlink(missing_ok=True)
