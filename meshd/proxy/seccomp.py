"""The five functions of libseccomp that meshd needs: seccomp_init(3), seccomp_rule_add(3).

The library is loaded by the name that its ABI has; looking it up runs other programs.
"""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Sequence
from typing import Final

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_NO_SYSTEM_CALL: Final = -1


class Compare(enum.IntEnum):
    """How an argument is compared: always as the whole register, of which ``int`` is a half."""

    MASKED_EQUAL = 7


class Argument(ctypes.Structure):
    """``struct scmp_arg_cmp``: the number of an argument, how it is compared, the mask, and with
    what."""

    _fields_ = (
        ("number", ctypes.c_uint),
        ("compare", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    )


class Filter:
    """Allows all system calls but those that are denied. All methods raise OSError."""

    def __init__(self) -> None:
        self._library = _library()
        self._context: int | None = self._library.seccomp_init(_ALLOW)
        if not self._context:
            raise OSError("libseccomp makes no filter")

    def deny(self, error: int, name: str, arguments: Sequence[Argument] = ()) -> None:
        """Have a system call fail with ``error``, if all ``arguments`` are as described."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number == _NO_SYSTEM_CALL:
            raise OSError(f"libseccomp does not know the system call {name}")
        listed = (Argument * len(arguments))(*arguments)
        add = self._library.seccomp_rule_add_array
        _check(add(self._context, _ERRNO | error, number, len(arguments), listed), name)

    def load(self) -> None:
        """Put the filter in force for this process and its children, for ever."""
        try:
            _check(self._library.seccomp_load(self._context), "seccomp_load")
        finally:
            self._library.seccomp_release(self._context)
            self._context = None


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")
    pointer, number, action = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32
    arguments = (pointer, action, number, ctypes.c_uint, ctypes.POINTER(Argument))
    for name, takes, returns in (
        ("seccomp_init", (action,), pointer),
        ("seccomp_syscall_resolve_name", (ctypes.c_char_p,), number),
        ("seccomp_rule_add_array", arguments, number),
        ("seccomp_load", (pointer,), number),
        ("seccomp_release", (pointer,), None),
    ):
        function = getattr(library, name)
        function.argtypes, function.restype = takes, returns
    return library


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{os.strerror(-result)} ({what})")
