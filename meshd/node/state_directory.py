"""Checks whether meshd's state directory can be written, before that is needed.

Nothing that is in force needs a disk, so that a failure would otherwise show at the next change, or
never.
"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Final

from meshd.base.unwritten import Unwritten

_LOOK: Final = 5.0
"""Seconds between looks, a system call each."""
_LEAST: Final = 64 * 1024
"""Bytes below which a disk counts as full: what is written is written beside the old first."""


class StateDirectory:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten = Unwritten(path, "disk", "can be written again")

    async def watch(self) -> None:
        """Watch until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK)

    def look(self) -> str:
        """Return the present problem, empty if there is none. The journal gets it once."""
        self._unwritten.note(self._judge())
        return self._unwritten.problem

    def _judge(self) -> str:
        try:
            found = os.statvfs(self._path)
        except OSError as error:
            return f"{self._path}: cannot be read: {error.strerror}"
        reason = why_not(found)
        return f"{self._path}: {reason}; what changes now cannot be kept" if reason else ""


def why_not(found: os.statvfs_result) -> str:
    """Return why a user other than root cannot write to a file system, statvfs(3)."""
    if found.f_flag & os.ST_RDONLY:
        return os.strerror(errno.EROFS)
    # Some file systems have no fixed number of files.
    is_out_of_files = bool(found.f_files) and not found.f_favail
    if is_out_of_files or found.f_bavail * found.f_frsize < _LEAST:
        return os.strerror(errno.ENOSPC)
    return ""
