"""The lock of iptables and ip6tables, held while legacy tables change: xtables-legacy(8)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError

LOCK: Final = Path("/run/xtables.lock")
LOCK_WAIT: Final = 5.0
"""Seconds."""
_LOOK: Final = 0.01
"""Seconds between attempts."""


@contextlib.contextmanager
def held() -> Generator[None]:
    """Raises SystemRefusedError when another program has it for too long."""
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # whoever can read it can lock it
        _wait_for(descriptor)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int) -> None:
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise SystemRefusedError(
                    f"another program holds {LOCK} for more than {LOCK_WAIT:g} s;"
                    f" find it with: fuser -v {LOCK}"
                ) from None
            time.sleep(_LOOK)
