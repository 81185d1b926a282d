"""A file of bounded size that ends with the last process that has it open.

It is in a tmpfs(5) of its own that is mounted nowhere, fsopen(2) and fsmount(2): the kernel refuses
what does not fit (ENOSPC), and space that was given back can be written again. Another process
reaches the file through a process that has it open.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Final

_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
"""Numbers of system calls, the same for all machines."""
_CLOEXEC: Final = 1
_SET_STRING: Final = 1
_CREATE: Final = 6
_NOSUID_NODEV_NOEXEC: Final = 0x02 | 0x04 | 0x08
_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.syscall.restype = ctypes.c_long


def make(name: str, size: int) -> int:
    """Create the file and return a descriptor to read and write it. Raises OSError."""
    context = _call(_FSOPEN, b"tmpfs", _CLOEXEC)
    try:
        _call(_FSCONFIG, context, _SET_STRING, b"size", str(size).encode(), 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        root = _call(_FSMOUNT, context, _CLOEXEC, _NOSUID_NODEV_NOEXEC)
    finally:
        os.close(context)
    try:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=root)
    finally:
        os.close(root)


def _call(number: int, *arguments: int | bytes | None) -> int:
    given = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    result = _libc.syscall(ctypes.c_long(number), *given)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def again(descriptor: int, flags: int) -> int:
    """Return another descriptor of the same file."""
    return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)


def held_by(pid: int, name: str) -> int | None:
    """Return a descriptor to read and write a file of this name that the process has open."""
    with contextlib.suppress(OSError):  # the process has ended
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it has closed it meanwhile
                if link.readlink().name == name:
                    return os.open(link, os.O_RDWR | os.O_CLOEXEC)
    return None


def is_full(descriptor: int) -> bool:
    return os.fstatvfs(descriptor).f_bfree == 0


def give_back(descriptor: int, size: int) -> None:
    """Make a hole of so many bytes at the beginning, fallocate(2)."""
    if size:
        _libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, 0, size)
