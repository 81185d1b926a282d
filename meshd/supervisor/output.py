"""What children write to stderr: read, passed on line by line, and the last line kept.

A role's is a pipe: should this process be killed, the role fails to write until the next
supervisor replaces it, which Python bears. A proxy's is a file, since Envoy goes on for long: what
it writes meanwhile is not lost, and it never waits for a reader.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

_MOST_PENDING: Final = 8192
"""Bytes kept of a line that does not end."""
_LARGEST_FILE: Final = 1024 * 1024
_LOOK_EVERY: Final = 2.0
"""Seconds."""

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
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_MOST_PENDING:]
        for line in lines:
            self._tell(line)

    def _flush(self) -> None:
        rest, self._rest = self._rest, b""
        self._tell(rest)

    def _tell(self, line: bytes) -> None:
        if text := line.decode(errors="replace").rstrip():
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
    """Looked at every now and then, and emptied before it grows large."""

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
        self._later()
        return descriptor

    def resume(self) -> None:
        self._offset = self._path.stat().st_size if self._path.exists() else 0
        self._later()

    def finish(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._read()
        self._flush()

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._read()
        self._later()

    def _read(self) -> None:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return  # an administrator may have removed it
        try:
            if os.fstat(descriptor).st_size < self._offset:
                self._offset = 0
            while data := os.pread(descriptor, 65536, self._offset):
                self._offset += len(data)
                self._feed(data)
            if self._offset > _LARGEST_FILE:
                # Writers append: they go on at the new end.
                os.ftruncate(descriptor, 0)
                self._offset = 0
        finally:
            os.close(descriptor)
