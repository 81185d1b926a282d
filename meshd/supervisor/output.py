"""The stderr of children: read, passed on line by line, and the last line kept.

A role's stderr is a pipe: if this process is killed, the role's writes fail until the next
supervisor replaces the role, which Python tolerates. A proxy's is a file, since Envoy lives longer:
as much as fits is kept meanwhile, and Envoy never waits for a reader.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol

from meshd.supervisor import bounded

_MOST_PENDING: Final = 8192
"""Bytes kept of a line that does not end."""
_AT_ONCE: Final = 512 * 1024
"""Bytes of a file that are read before others have their turn."""
_MOST_UNREAD: Final = 32 * 1024 * 1024
"""Bytes of a file that are kept until they are read; they are in memory."""
_LOOK_EVERY: Final = 1.0
_LOOK_AGAIN: Final = 0.01
"""Seconds."""
_OVERFLOW: Final = b"it wrote more than is kept while nobody reads: lines before this one are lost"

PassOn = Callable[[str], None]


class Output(Protocol):
    last: str
    """The last line that was read."""

    def open(self) -> int:
        """Return a descriptor for a new process to write to; the caller closes it."""
        ...

    def resume(self, pid: int) -> None:
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

    def resume(self, pid: int) -> None:
        """Do nothing: no other process has the other end."""

    def finish(self) -> None:
        while self._reader >= 0 and self._read():
            pass
        self._close()

    def _read(self) -> bool:
        """Read once; return whether there may be more."""
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
    """A file that is read every now and then; space that was read is given back at once.

    The file itself is never truncated: that would lose what a writer appends meanwhile. Its
    beginning becomes a hole, which also shows the next supervisor how far this one came.
    """

    def __init__(self, name: str, pass_on: PassOn, owner: int = 0) -> None:
        """Take the name of the file; ``owner`` may open it by way of /proc/self/fd."""
        super().__init__(pass_on)
        self._name = f"{name}.log"
        self._owner = owner
        self._file = -1
        self._offset = 0
        self._overflown = False
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> int:
        self.last = ""
        self._close()
        self._file = bounded.make(self._name, _MOST_UNREAD)
        os.fchown(self._file, self._owner, -1)
        self._offset = 0
        self._later(_LOOK_EVERY)
        return bounded.again(self._file, os.O_WRONLY | os.O_APPEND)

    def resume(self, pid: int) -> None:
        self._close()
        if (found := bounded.held_by(pid, self._name)) is not None:
            self._file, self._offset = found, _first_unread(found)
            self._later(_LOOK_EVERY)

    def finish(self) -> None:
        while self._read():
            pass
        self._flush()
        self._close()

    def _close(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _later(self, pause: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        self._later(_LOOK_AGAIN if self._read() else _LOOK_EVERY)

    def _read(self) -> bool:
        """Read once; return whether there is more. A flood must not keep the loop from other
        work."""
        if self._file < 0:
            return False
        self._overflown |= bounded.is_full(self._file)
        before = self._offset
        while self._offset - before < _AT_ONCE and (
            data := os.pread(self._file, 65536, self._offset)
        ):
            self._offset += len(data)
            self._feed(data)
        bounded.give_back(self._file, self._offset)
        more = self._offset - before >= _AT_ONCE
        if self._overflown and not more:
            self._overflown = False
            self._tell(_OVERFLOW)
        return more


def _first_unread(descriptor: int) -> int:
    """Return the offset behind the hole, which reads as zeros; without a hole, 0."""
    end = os.fstat(descriptor).st_size
    try:
        offset = os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError:
        return end
    while block := os.pread(descriptor, 65536, offset):
        if rest := block.lstrip(b"\0"):
            return offset + len(block) - len(rest)
        offset += len(block)
    return end
