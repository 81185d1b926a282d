"""The texts that ``-f`` names, each with its name for messages."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import typer

from meshd.api.yaml import MAX_BYTES, ManifestError, read_text
from meshd.base.errors import InvalidInputError

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
    path = Path(name)
    if not path.exists():
        raise InvalidInputError(f"{name}: no such file or directory")
    if not path.is_dir():
        yield name, read_text(path)
        return
    found = sorted(
        entry
        for entry in (path.rglob("*") if recursive else path.iterdir())
        if entry.suffix in _SUFFIXES and entry.is_file()
    )
    if not found:
        raise InvalidInputError(f"{name}: no file there ends in .yaml, .yml or .json")
    yield from ((str(entry), read_text(entry)) for entry in found)


def _standard_input() -> str:
    raw = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ManifestError("-", 1, f"more than {MAX_BYTES} bytes; split it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ManifestError("-", line, "not UTF-8 text") from None
