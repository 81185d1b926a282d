"""Turns datagrams away from a process that is about to be replaced, so that none is lost.

Of several UDP sockets with SO_REUSEPORT the kernel picks one for each datagram as long as the
socket is open, and hands nothing on when it is closed. A connected socket is passed over, while
what it has received can still be read, and it still sends to any address. Envoy does not connect
its sockets, so this is done from outside: pidfd_getfd(2) returns the same socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CAPABILITIES: Final = ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
"""For the sockets of another user's process, and to see which they are."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD: Final = 438
"""The system call's number, which is the same on all architectures."""
_NOBODY: Final = {socket.AF_INET: ("127.0.0.1", 9), socket.AF_INET6: ("::1", 9)}
"""A peer that sends nothing: the discard service's port."""


def command(pid: int) -> tuple[str, ...]:
    """Return the command line that turns datagrams away in a process of its own."""
    return (sys.executable, "-P", "-m", "meshd.supervisor.datagrams", str(pid))


def turn_away(pid: int) -> int:
    """Connect each socket that the process may share with another; return their number.

    Raises OSError when the process cannot be reached, or we may not do that to it.
    """
    count = 0
    for shared in _shared(pid):
        # Nobody gets through to where there is no loopback interface, either.
        with contextlib.suppress(OSError):
            shared.connect(_NOBODY[shared.family])
            count += 1
    return count


def _shared(pid: int) -> Iterator[socket.socket]:
    process = os.pidfd_open(pid)
    try:
        for number in _descriptors(pid):
            descriptor = _borrow(process, number)
            if descriptor is None:
                continue
            with socket.socket(fileno=descriptor) as found:
                if _is_shared(found):
                    yield found
    finally:
        os.close(process)


def _descriptors(pid: int) -> Iterator[int]:
    """Yield the descriptors of sockets."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(path.readlink()).startswith("socket:"):
                yield int(path.name)


def _borrow(process: int, number: int) -> int | None:
    """Return a copy of the socket; None if the process has just closed it. Raises OSError."""
    descriptor = _LIBC.syscall(_PIDFD_GETFD, process, number, 0)
    if descriptor < 0:
        code = ctypes.get_errno()
        if code == errno.EBADF:
            return None
        raise OSError(code, os.strerror(code))
    return descriptor


def _is_shared(found: socket.socket) -> bool:
    is_udp = found.type == socket.SOCK_DGRAM and found.family in _NOBODY
    return is_udp and bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


if __name__ == "__main__":
    try:
        turn_away(int(sys.argv[1]))
    except OSError as problem:
        sys.exit(problem.strerror)
