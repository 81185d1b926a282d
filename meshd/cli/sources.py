"""The texts that ``-f`` names, each with its name for messages."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import typer

from meshd.api.yaml import MAX_BYTES, ManifestError, read_text
from meshd.base.errors import InvalidInputError
from meshd.base.printable import printable

_SUFFIXES: Final = {".yaml", ".yml", ".json"}


def read_sources(files: Iterable[str] | None, *, recursive: bool) -> tuple[tuple[str, str], ...]:
    """Return pairs of a name and a text. Raises InvalidInputError if one cannot be read."""
    if not files:
        raise typer.BadParameter("name at least one manifest with -f")
    return tuple(pair for name in files for pair in _read(name, recursive))


def _read(name: str, recursive: bool) -> Iterator[tuple[str, str]]:
    if name == "-":
        yield "-", _standard_input()
        return
    if not name:
        raise typer.BadParameter("-f needs the path of a manifest; the path given is empty")
    path = Path(name)
    try:
        found = _manifests(path, recursive=recursive) if stat.S_ISDIR(path.stat().st_mode) else None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidInputError(f"{printable(name)}: {reason}") from None
    if found is None:
        yield printable(name), read_text(path)
        return
    if not found:
        raise InvalidInputError(f"{name}: no file there ends in .yaml, .yml or .json")
    yield from ((printable(str(entry)), read_text(entry)) for entry in found)


def _manifests(directory: Path, *, recursive: bool) -> list[Path]:
    """Return the manifests in a directory. Raises OSError."""
    return sorted(
        entry
        for entry in (directory.rglob("*") if recursive else directory.iterdir())
        if entry.suffix in _SUFFIXES and entry.is_file()
    )


def _standard_input() -> str:
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]  # where it is closed
        raise InvalidInputError("-: standard input is closed; give it a manifest, or name a file")
    raw = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ManifestError("-", 1, f"more than {MAX_BYTES} bytes; split it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ManifestError("-", line, "not UTF-8 text") from None
