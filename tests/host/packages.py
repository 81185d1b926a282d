"""Debian packages of this checkout, and of the same with another version: built once, kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import py_compile
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
    shutil.rmtree(source)
    (this,) = new.glob("*.deb")
    _pack_next(this, new / "tree")
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


def _pack_next(this: Path, tree: Path) -> None:
    """The package of the next version differs in nothing but its number and its settings, and is
    not built once more for that."""
    name, old, architecture = this.name.split("_")
    subprocess.run(["dpkg-deb", "--raw-extract", this, tree], check=True, timeout=_PATIENCE)
    _replace(tree / "DEBIAN/control", f"Version: {old}", f"Version: {NEXT}")
    (package,) = tree.glob("opt/meshd/lib/*/site-packages/meshd/__init__.py")
    _replace(package, f'"{old}"', f'"{NEXT}"')
    py_compile.compile(
        str(package),
        dfile=f"/{package.relative_to(tree)}",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    settings = tree / "etc/meshd/meshd.yaml"
    settings.write_text(settings.read_text() + CHANGE)
    following = this.with_name(f"{name}_{NEXT}_{architecture}")
    options = ("--root-owner-group", "-Zzstd", "-z0", "--build")
    subprocess.run(
        ["dpkg-deb", *options, tree, following], check=True, capture_output=True, timeout=_PATIENCE
    )
    shutil.rmtree(tree)


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file}: {old}"
    file.write_text(text.replace(old, new))
