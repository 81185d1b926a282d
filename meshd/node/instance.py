"""What tells a machine, and its present run, from its clones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from meshd.base import hardware

_BOOT: Path = Path("/proc/sys/kernel/random/boot_id")
_MACHINE: Path = Path("/etc/machine-id")


def instance_of(run: Path) -> str:
    """Return a value that is the same in all processes of a node until it restarts, and differs in
    clones.

    Containers share the kernel's boot id with their host: the run directory tells them apart.
    """
    found = run.stat()
    parts = (_text(_BOOT), _text(_MACHINE), str(found.st_dev), str(found.st_ino))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def machine() -> str:
    """Return what stays the same when this machine restarts: of its machine-id and its hardware.

    Either may be empty: not every machine has them.
    """
    kept = _text(_MACHINE) if is_kept(_MACHINE) else ""
    marks = (hardware.digest(kept) if kept else "", os.environ.get(hardware.VARIABLE, ""))
    return ".".join(marks)


def is_kept(path: Path) -> bool:
    """Return whether a machine-id is kept over boots.

    It is not where systemd mounts it over a file that cannot be written (machine-id(5)), or has
    none that is its own yet.
    """
    try:
        return path.stat().st_dev == path.parent.stat().st_dev
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        found = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if found == "uninitialized" else found
