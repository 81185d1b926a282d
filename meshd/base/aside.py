"""Keeps a copy of a file with unusable content, before the file is rewritten.

What is damaged again and again must not fill the disk: of each file a few copies are kept.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

MOST: Final = 8
"""Copies of one file: the first one, which is nearest to what was good, and the newest ones."""


def set_aside(path: Path) -> Path:
    """Return the path of the copy: ``PATH.damaged-N``. The same content is copied once. Raises
    OSError."""
    content = path.read_bytes()
    for known in copies(path):
        if _has(known, content):
            return known
    aside = _next(path)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError:
        aside.unlink()
        raise
    _remove_surplus(path)
    return aside


def move_aside(path: Path) -> Path:
    """Move a file to ``PATH.damaged-N``, also one that cannot be read. Raises OSError."""
    try:
        aside = set_aside(path)
    except OSError:
        aside = _next(path)
        path.rename(aside)
        _remove_surplus(path)
    else:
        path.unlink()
    return aside


def copies(path: Path) -> list[Path]:
    """Return what was set aside of a file, the oldest first."""
    named = re.compile(re.escape(path.name) + r"\.damaged-([0-9]+)", re.ASCII)
    found = ((named.fullmatch(one.name), one) for one in path.parent.iterdir())
    return [one for _, one in sorted((int(match[1]), one) for match, one in found if match)]


def _next(path: Path) -> Path:
    last = max((int(one.name.rpartition("-")[2]) for one in copies(path)), default=0)
    return path.with_name(f"{path.name}.damaged-{last + 1}")


def _remove_surplus(path: Path) -> None:
    for one in copies(path)[1 : 1 - MOST]:
        with contextlib.suppress(OSError):  # a directory that somebody has put there
            one.unlink()


def _has(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == content
    except OSError:
        return False
