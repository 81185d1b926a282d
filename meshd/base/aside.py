"""Keeps a copy of a file with unusable content, before the file is rewritten."""

from __future__ import annotations

import os
from pathlib import Path


def set_aside(path: Path) -> Path:
    """Return the path of the copy: ``PATH.damaged-N``. The same content is copied once. Raises
    OSError."""
    content = path.read_bytes()
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.damaged-{number}")
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if _has(aside, content):
                return aside
            number += 1
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return aside


def _has(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == content
    except OSError:
        return False
