"""Control groups of version 2, by which services of the host are distinguished.

A rule that matches a cgroup is bound to that very one: a cgroup made again under the same path is
another one, so ``identify`` tells which one exists.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError

_PROBE: Final = "meshd-probe"
"""A cgroup below the service's, for the moment of a probe: systemd lets no process live in a slice
itself."""


@functools.cache
def root() -> Path:
    """Return the mount point of the cgroup2 hierarchy. Raises SystemRefusedError if there is
    none."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(place)
    raise SystemRefusedError(
        "no cgroup2 hierarchy is mounted, without which services of the host cannot be told apart"
    )


def identify(path: str) -> int:
    """Return a number that no other cgroup has had; 0 if there is no such cgroup."""
    try:
        return (root() / path).stat().st_ino
    except OSError:
        return 0


@contextlib.contextmanager
def visited(path: str) -> Generator[None]:
    """Put this process into the cgroup within the block, with the sockets that it opens.

    Raises SystemRefusedError. The process must end soon after: ``swept`` removes what is left.
    """
    place = root() / path / _PROBE
    try:
        place.mkdir(exist_ok=True)
        (place / "cgroup.procs").write_text("0", encoding="ascii")
    except OSError as error:
        raise SystemRefusedError(f"cannot probe from cgroup {path}: {error.strerror}") from None
    yield


def sweep(path: str) -> None:
    """Remove what ``visited`` made, once its process has ended."""
    with contextlib.suppress(OSError):
        (root() / path / _PROBE).rmdir()
