"""What tells a running machine from its clones."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BOOT: Path = Path("/proc/sys/kernel/random/boot_id")
_MACHINE: Path = Path("/etc/machine-id")


def instance_of(run: Path) -> str:
    """The same in all processes of a node until it restarts, and another one in each clone.

    Containers share the kernel's boot id with their host: the run directory tells them apart.
    """
    found = run.stat()
    parts = (_text(_BOOT), _text(_MACHINE), str(found.st_dev), str(found.st_ino))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
