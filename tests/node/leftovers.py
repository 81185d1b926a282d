"""What there is of a node outside its directory."""

from __future__ import annotations

import contextlib
from pathlib import Path


def mounts_below(home: Path) -> list[str]:
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return [at for line in mounts if (at := line.split(" ")[1]).startswith(f"{home}/")]


def processes_of(home: Path, cidr: str) -> list[int]:
    """Those that were started with it as their MESHD_HOME, and those of pods, whose uids are out
    of their addresses."""
    found: list[int] = []
    marker = f"MESHD_HOME={home}".encode()
    third = int(cidr.split(".")[2])
    uids = range(200_000 + third * 256, 200_000 + third * 256 + 256)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            ours = marker in (process / "environ").read_bytes().split(b"\0")
            zombie = "\nState:\tZ" in (process / "status").read_text()
            if (ours or process.stat().st_uid in uids) and not zombie:
                found.append(int(process.name))
    return found
