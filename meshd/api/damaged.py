"""Removes unreadable parts of objects, so that the rest can be validated too. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meshd.api.base import Object
from meshd.api.decode import Path, decode_all
from meshd.api.finding import Finding
from meshd.api.yaml import show_path
from meshd.base.json_values import Json

_ROUNDS: Final = 10
"""Of leaving out what cannot be read: each may show that what is around it is missing something."""


def readable_part(value: Json, kind: type[Object]) -> tuple[Object, tuple[Path, ...]] | None:
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


def readable_items(value: Json, kind: type[Object]) -> tuple[Object, frozenset[str]] | None:
    """Return the object without what cannot be read, items of lists too, and the fields of its
    specification of which something is missing; None if nothing is left.
    """
    cut: set[str] = set()
    left = value
    for _ in range(_ROUNDS):
        decoded, mistakes = decode_all(left, kind)
        if decoded is not None:
            return decoded, frozenset(cut)
        places = {_nearest(left, mistake.path) for mistake in mistakes}
        if () in places:
            return None
        cut |= _fields_of_spec(places)
        left = _without(left, places, ())
    if (part := readable_part(value, kind)) is None:
        return None
    return part[0], frozenset(cut | _fields_of_spec(part[1]))


def _fields_of_spec(places: Iterable[Path]) -> set[str]:
    return {str(path[1]) for path in places if len(path) > 1 and path[0] == "spec"}


def about_the_rest(findings: Iterable[Finding], left_out: Iterable[Path]) -> tuple[Finding, ...]:
    """Return the findings that do not result from what was left out."""
    around = {show_path(path[:length]) for path in left_out for length in range(len(path) + 1)}
    return tuple(finding for finding in findings if finding.field not in around)


def _nearest_key(value: Json, path: Path) -> Path:
    """Return the innermost existing field at a path that is not an item of a list.

    Items are known by their numbers, and keep them. Empty: there is none.
    """
    path = _nearest(value, path)
    while path and isinstance(path[-1], int):
        path = path[:-1]
    return path


def _nearest(value: Json, path: Path) -> Path:
    """Return the innermost existing field or item at a path. Empty: there is none."""
    for length, part in enumerate(path):
        if (found := _below(value, part)) is None:
            return path[:length]
        (value,) = found
    return path


def _below(value: Json, part: str | int) -> tuple[Json] | None:
    """Return what stands at a key or an index; None if nothing does."""
    if isinstance(part, str):
        return (value[part],) if isinstance(value, dict) and part in value else None
    return (value[part],) if isinstance(value, list) and part < len(value) else None


def _without(value: Json, places: set[Path], here: Path) -> Json:
    if isinstance(value, dict):
        return {
            key: _without(part, places, (*here, key))
            for key, part in value.items()
            if (*here, key) not in places
        }
    if isinstance(value, list):
        return [
            _without(part, places, (*here, index))
            for index, part in enumerate(value)
            if (*here, index) not in places
        ]
    return value
