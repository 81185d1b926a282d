"""Replaces a file as a whole: whoever is killed leaves the old content or the new one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from meshd.base.errors import SystemRefusedError


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` in place of a file, 0600, all or nothing. Raises SystemRefusedError."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
        _sync_directory(path.parent)
    except OSError as error:
        raise SystemRefusedError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _sync_directory(directory: Path) -> None:
    """Sync the directory, so that the new name itself is on disk: fsync(2).

    If that fails the new content is in place all the same: only a power cut could undo it.
    """
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
