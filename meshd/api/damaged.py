"""Removes unreadable parts of objects, so that the rest can be validated too. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from meshd.api.base import Object
from meshd.api.decode import Path, decode_all
from meshd.api.finding import Finding
from meshd.api.yaml import show_path

_ROUNDS: Final = 10
"""Of leaving out what cannot be read: each may show that what is around it is missing something."""


def readable_part(value: Any, kind: type[Object]) -> tuple[Object, tuple[Path, ...]] | None:
    """Return the object without its unreadable parts, and their paths; None if nothing is left."""
    left_out: set[Path] = set()
    for _ in range(_ROUNDS):
        decoded, mistakes = decode_all(value, kind)
        if decoded is not None:
            return decoded, tuple(left_out)
        places = {_nearest_key(value, mistake.path) for mistake in mistakes}
        if () in places:
            return None
        left_out |= places
        value = _without(value, places, ())
    return None


def about_the_rest(findings: Iterable[Finding], left_out: Iterable[Path]) -> tuple[Finding, ...]:
    """Return the findings that do not result from what was left out."""
    around = {show_path(path[:length]) for path in left_out for length in range(len(path) + 1)}
    return tuple(finding for finding in findings if finding.field not in around)


def _nearest_key(value: Any, path: Path) -> Path:
    """Return the innermost existing field at a path that is not an item of a list.

    Items are known by their numbers, and keep them. Empty: there is none.
    """
    depth = 0
    for length, part in enumerate(path, start=1):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
        if isinstance(part, str):
            depth = length
    return path[:depth]


def _without(value: Any, places: set[Path], here: Path) -> Any:
    if isinstance(value, dict):
        return {
            key: _without(part, places, (*here, key))
            for key, part in value.items()
            if (*here, key) not in places
        }
    if isinstance(value, list):
        return [_without(part, places, (*here, index)) for index, part in enumerate(value)]
    return value
