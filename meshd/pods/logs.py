"""Reads a container's log as it grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError

_CHUNK: Final = 64 * 1024
_LOOK: Final = 0.1
"""Seconds between looks at what more there is."""


def read_log(log: Path, *, follow: bool) -> Iterator[bytes]:
    """Yield parts of a log, with ``follow`` until its pod is gone; a log that was cut starts again.

    Raises SystemRefusedError if it cannot be read.
    """
    try:
        with log.open("rb") as file:
            while True:
                while part := file.read(_CHUNK):
                    yield part
                if not follow or not log.exists():
                    return
                if log.stat().st_size < file.tell():
                    file.seek(0)
                else:
                    time.sleep(_LOOK)
    except FileNotFoundError:
        if not follow:
            raise SystemRefusedError(f"{log} is gone: its pod has ended") from None
    except OSError as error:
        raise SystemRefusedError(f"cannot read {log}: {error.strerror}") from None
