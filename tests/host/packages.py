"""Debian packages of this checkout, and of the same with another version: built once, kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.host.machine import Machine
from tests.host.tree import CHECKOUT

NEXT: Final = "99.1"
"""Version of the second package."""
CHANGE: Final = "# What is new in the next version.\n"
"""Stands at the end of its settings."""
_SOURCES: Final = ("meshd", "systemd", "etc", ".ci", "pyproject.toml", "README.md", "LICENSE")
_PLACE: Final = CHECKOUT / "build" / "test-packages"
_PATIENCE: Final = 600.0


def both() -> tuple[Path, Path]:
    """This version's, and the next one's."""
    _PLACE.mkdir(parents=True, exist_ok=True)
    with (_PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = _PLACE / _digest()
        if not place.exists():
            for old in _PLACE.glob("*/"):
                shutil.rmtree(old)
            _build(place)
    this, following = sorted(place.glob("*.deb"))
    return this, following


def write_faster(machine: Machine) -> None:
    """What dpkg writes there need not get through to the disk: it is thrown away."""
    machine.write("/etc/dpkg/dpkg.cfg.d/faster", "force-unsafe-io\n")


def _files() -> Iterator[Path]:
    for name in _SOURCES:
        top = CHECKOUT / name
        found = top.rglob("*") if top.is_dir() else (top,)
        yield from sorted(path for path in found if path.is_file() and path.suffix != ".pyc")


def _digest() -> str:
    digest = hashlib.sha256()
    for path in _files():
        digest.update(str(path).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _build(place: Path) -> None:
    new = place.with_name("new")
    shutil.rmtree(new, ignore_errors=True)
    source = new / "source"
    for path in _files():
        copy = source / path.relative_to(CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    _pack(source, new)
    package = source / "meshd" / "__init__.py"
    package.write_text(re.sub(r'"\d[^"]*"', f'"{NEXT}"', package.read_text()))
    settings = source / "etc" / "meshd.yaml"
    settings.write_text(settings.read_text() + CHANGE)
    _pack(source, new)
    shutil.rmtree(source)
    new.rename(place)


def _pack(source: Path, output: Path) -> None:
    done = subprocess.run(
        [source / "etc/debian/build", output, "0"],
        env={**os.environ, "CACHE": str(CHECKOUT / "build" / "deb")},
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE,
    )
    assert done.returncode == 0, f"{done.stdout[-1500:]}{done.stderr[-1500:]}"
