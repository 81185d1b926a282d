"""Reads a file whose name others have chosen, without waiting for it or changing anything.

A name may lead anywhere: to a pipe without a writer, a device that acts when it is opened, a file
of gigabytes, another directory. The target is inspected before it is opened for reading.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from meshd.api.secret_files import is_below
from meshd.base.errors import InvalidInputError

LARGEST: Final = 1024 * 1024
"""Bytes, as of a Secret in Kubernetes."""
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def read_below(path: str, directories: Iterable[str]) -> bytes:
    """Return the content of a regular file in one of these directories, links followed. Raises
    InvalidInputError."""
    allowed = tuple(directories)
    if not is_below(path, allowed):
        raise InvalidInputError(f"{path}: {_outside(allowed)}")
    return _read(path, allowed)


def read_any(paths: Iterable[str]) -> bytes:
    """Return the content of the first of these files that exists. Raises InvalidInputError."""
    tried = tuple(paths)
    for path in tried:
        if Path(path).exists():
            return _read(path, None)
    raise InvalidInputError(f"there is none of {', '.join(tried)}")


def _read(path: str, allowed: tuple[str, ...] | None) -> bytes:
    try:
        # With O_PATH nothing is opened but the name (open(2)).
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path}: {_said(error)}") from None
    try:
        _check(path, found, allowed)
        # The very file that was looked at, whatever has its name by now.
        opened = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise InvalidInputError(f"{path}: {_said(error)}") from None
    finally:
        os.close(found)
    if len(content) > LARGEST:
        raise InvalidInputError(f"{path}: {_too_large()}")
    return content


def _check(path: str, found: int, allowed: tuple[str, ...] | None) -> None:
    """Raises InvalidInputError, OSError."""
    target = str(Path(f"/proc/self/fd/{found}").readlink())
    if allowed is not None and not is_below(target, map(os.path.realpath, allowed)):
        raise InvalidInputError(f"{path}: it leads to {target}, which {_outside(allowed)}")
    there = os.fstat(found)
    if not stat.S_ISREG(there.st_mode):
        kind = _KINDS.get(stat.S_IFMT(there.st_mode), "no regular file")
        raise InvalidInputError(f"{path}: it is {kind}")
    if there.st_size > LARGEST:
        raise InvalidInputError(f"{path}: {_too_large()}")


def _outside(allowed: tuple[str, ...]) -> str:
    return f"is not below {' or '.join(allowed)} (setting identity.certificate_directories)"


def _too_large() -> str:
    return f"is larger than {LARGEST} bytes"


def _said(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
