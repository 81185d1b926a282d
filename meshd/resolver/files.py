"""The directories that dnsmasq reads: written by the mesh role, as a whole."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Final

from meshd.base.disk import replace
from meshd.base.errors import SystemRefusedError
from meshd.resolver.tables import Tables

HOSTS: Final = "hosts"
SERVERS: Final = "servers"
WILDCARDS: Final = "wildcards.conf"
NOBODY: Final = "nobody-outside"
"""It is there while nobody outside takes queries."""


def make(directory: Path) -> None:
    """Make a namespace's directory with the modes of its parent. Raises SystemRefusedError."""
    try:
        for path in (directory.parent, directory):
            if not path.exists():
                path.mkdir()
                path.chmod(0o755)
    except OSError as error:
        raise SystemRefusedError(f"{directory}: cannot be made: {error.strerror}") from None


def write(directory: Path, tables: Tables) -> bool:
    """Write the files; return whether any content changed. Raises SystemRefusedError.

    A missing file counts as an empty one: a file newer than the resolver could make it restart.
    """
    texts = {HOSTS: tables.hosts, SERVERS: tables.servers, WILDCARDS: tables.wildcards}
    changed = {name: text for name, text in texts.items() if (read(directory / name) or "") != text}
    for name, text in changed.items():
        replace(directory / name, text.encode(), 0o644, durable=False)
    return bool(changed)


def remove(directory: Path) -> None:
    """Raises SystemRefusedError."""
    try:
        shutil.rmtree(directory)
    except OSError as error:
        raise SystemRefusedError(f"{directory}: cannot be removed: {error.strerror}") from None


def note(path: Path, *, present: bool) -> bool:
    """Make or remove an empty file; return whether that changed anything. Raises
    SystemRefusedError."""
    if path.exists() == present:
        return False
    try:
        path.touch(0o644) if present else path.unlink()
    except OSError as error:
        raise SystemRefusedError(f"{path}: cannot be written: {error.strerror}") from None
    return True


def read(path: Path) -> str | None:
    """Return the text of a file; None if there is none."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return None
