"""All doors, by name."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path

from tests.fuzz.door import Door
from tests.fuzz.doors import configuration, files, identities, sockets, texts


@contextlib.contextmanager
def table() -> Generator[Mapping[str, Door]]:
    """Some doors read files, which are in memory."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        listed = (
            *configuration.DOORS,
            *sockets.DOORS,
            *identities.DOORS,
            *texts.DOORS,
            *files.doors(Path(directory)),
        )
        yield {door.name: door for door in listed}
