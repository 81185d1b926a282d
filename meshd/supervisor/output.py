"""What children write to stderr: read, passed on line by line, and the last line kept.

A role's is a pipe: should this process be killed, the role fails to write until the next
supervisor replaces it, which Python bears. A proxy's is a file, since Envoy goes on for long: what
it writes meanwhile is not lost, and it never waits for a reader.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

_MOST_PENDING: Final = 8192
"""Bytes kept of a line that does not end."""
_AT_ONCE: Final = 512 * 1024
"""Bytes of a file that are read before others have their turn."""
_LOOK_EVERY: Final = 2.0
_LOOK_AGAIN: Final = 0.01
"""Seconds."""
_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

PassOn = Callable[[str], None]


class Output(Protocol):
    last: str
    """The last line that was read."""

    def open(self) -> int:
        """A descriptor for a new process to write to; the caller closes it."""
        ...

    def resume(self) -> None:
        """Go on with what a process writes that runs already."""
        ...

    def finish(self) -> None:
        """Pass on what is left of a process that ended."""
        ...


class _Lines:
    def __init__(self, pass_on: PassOn) -> None:
        self.last = ""
        self._pass_on = pass_on
        self._rest = b""

    def _feed(self, data: bytes) -> None:
        whole, newline, rest = (self._rest + data).rpartition(b"\n")
        self._rest = rest[-_MOST_PENDING:]
        if newline:
            self._tell(whole)

    def _flush(self) -> None:
        rest, self._rest = self._rest, b""
        self._tell(rest)

    def _tell(self, lines: bytes) -> None:
        for line in lines.decode(errors="replace").split("\n"):
            if text := line.rstrip():
                self.last = text
                self._pass_on(text)


class Pipe(_Lines):
    _reader = -1

    def open(self) -> int:
        self.last = ""
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        asyncio.get_running_loop().add_reader(self._reader, self._read)
        return writer

    def resume(self) -> None:
        """Nobody has the other end."""

    def finish(self) -> None:
        while self._reader >= 0 and self._read():
            pass
        self._close()

    def _read(self) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(self._reader, 65536)
        except BlockingIOError:
            return False
        if data:
            self._feed(data)
        else:
            self._close()
        return bool(data)

    def _close(self) -> None:
        if self._reader >= 0:
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1
            self._flush()


class File(_Lines):
    """Looked at every now and then. What was read is given back to the file system at once.

    The file itself is never cut: what a writer appends meanwhile would be lost. Its beginning
    becomes a hole, by which the next supervisor sees, too, how far this one came.
    """

    def __init__(self, path: Path, pass_on: PassOn) -> None:
        super().__init__(pass_on)
        self._path = path
        self._offset = 0
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> int:
        self.last = ""
        self._path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        self._offset = 0
        self._later(_LOOK_EVERY)
        return descriptor

    def resume(self) -> None:
        self._offset = _first_unread(self._path)
        self._later(_LOOK_EVERY)

    def finish(self) -> None:
        if self._timer:
            self._timer.cancel()
        while self._read():
            pass
        self._flush()

    def _later(self, pause: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        self._later(_LOOK_AGAIN if self._read() else _LOOK_EVERY)

    def _read(self) -> bool:
        """Whether there is more: a flood must not keep the loop from everything else."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False  # an administrator may have removed it
        try:
            if os.fstat(descriptor).st_size < self._offset:
                self._offset = 0  # or emptied
            before = self._offset
            while self._offset - before < _AT_ONCE and (
                data := os.pread(descriptor, 65536, self._offset)
            ):
                self._offset += len(data)
                self._feed(data)
            _give_back(descriptor, self._offset)
            return self._offset - before >= _AT_ONCE
        finally:
            os.close(descriptor)


def _give_back(descriptor: int, size: int) -> None:
    """Make a hole of so many bytes at the beginning, fallocate(2)."""
    if size:
        _libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, 0, size)


def _first_unread(path: Path) -> int:
    """Behind the hole, which reads as zeros to its last byte. No hole: all of it."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            try:
                offset = file.seek(0, os.SEEK_DATA)
            except OSError:
                return end
            while block := file.read(65536):
                if rest := block.lstrip(b"\0"):
                    return offset + len(block) - len(rest)
                offset += len(block)
            return end
    except FileNotFoundError:
        return 0
