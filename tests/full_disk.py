"""A full file system that stays full when somebody takes a file away."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator
from pathlib import Path


@contextlib.contextmanager
def full(directory: Path) -> Generator[None]:
    """Fill the file system of a directory, and fill again each page that is given back."""
    filling, over = directory / "fills", threading.Event()
    descriptor = os.open(filling, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)

    def fill() -> None:
        for size in (64 * 1024, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(descriptor, b"x" * size)

    def keep_full() -> None:
        while not over.wait(0.005):
            fill()

    fill()
    keeper = threading.Thread(target=keep_full)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        os.close(descriptor)
        filling.unlink()
