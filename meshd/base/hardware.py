"""The number of the firmware or hypervisor, which tells a machine from a copy of its disk.

Only root may read it, and only its hash leaves the supervisor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "MESHD_HARDWARE"
"""The environment variable by which the supervisor tells its roles."""
_PRODUCT: Path = Path("/sys/class/dmi/id/product_uuid")


def environment() -> Mapping[str, str]:
    """Return what roles are to find in theirs; nothing where the machine has no number."""
    try:
        number = _PRODUCT.read_text(encoding="ascii", errors="replace").strip().lower()
    except OSError:
        return {}
    return {VARIABLE: digest(number)} if number else {}


def digest(text: str) -> str:
    """Return what stands for it where others can see it: no number leaves its machine."""
    return hashlib.sha256(f"meshd\n{text}".encode()).hexdigest()[:32]
