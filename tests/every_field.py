"""Objects with single fields altered, so that a test sees whether anybody notices."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from meshd.api import kinds
from meshd.api.base import Duration, Object

Field = tuple[type[msgspec.Struct], str]
"""A type of value in an object, and the name of a field of it."""
Alternatives = Callable[[Any, Any], Iterable[Any]]
"""From a field's value and its default (or NODEFAULT) to other values."""
NODEFAULT: Final = msgspec.NODEFAULT


def every_field(of: Sequence[type[Object]] = kinds.STORED) -> dict[Field, None]:
    """Return all fields of these kinds and of all values in them."""
    found: dict[type[msgspec.Struct], None] = {}
    for kind in of:
        _collect(kind, found)
    return {(kind, field.name): None for kind in found for field in msgspec.structs.fields(kind)}


def _collect(annotation: Any, found: dict[type[msgspec.Struct], None]) -> None:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        if annotation in found:
            return
        found[annotation] = None
        for field in msgspec.structs.fields(annotation):
            _collect(field.type, found)
    for part in typing.get_args(annotation):
        _collect(part, found)


def altered(value: Any, alternatives: Alternatives) -> Iterator[tuple[tuple[Field, ...], Any]]:
    """Yield the value with each field that it sets altered alone, and the fields that lead there,
    the altered one last."""
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            yield from _altered_field(value, field, alternatives)
    elif isinstance(value, tuple):
        items = typing.cast("tuple[Any, ...]", value)
        for at, item in enumerate(items):
            for chain, other in altered(item, alternatives):
                yield chain, (*items[:at], other, *items[at + 1 :])
    elif isinstance(value, dict):
        entries = typing.cast("dict[Any, Any]", value)
        for key, item in entries.items():
            for chain, other in altered(item, alternatives):
                yield chain, entries | {key: other}


def _altered_field(
    value: msgspec.Struct, field: msgspec.structs.FieldInfo, alternatives: Alternatives
) -> Iterator[tuple[tuple[Field, ...], msgspec.Struct]]:
    own, default, here = getattr(value, field.name), default_of(field), (type(value), field.name)
    if own == default:
        return
    for other in alternatives(own, default):
        yield (here,), msgspec.structs.replace(value, **{field.name: other})
    for chain, other in altered(own, alternatives):
        yield (here, *chain), msgspec.structs.replace(value, **{field.name: other})


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not NODEFAULT:
        return field.default_factory()
    return field.default


def left_out_or_other(value: Any, default: Any) -> Iterator[Any]:
    """Yield what a field has where it is not written, and something else that it might have."""
    if default is not NODEFAULT:
        yield default
    match value:
        case bool():
            yield not value
        case str():
            yield f"{value}9"
        case Duration():
            yield Duration(value + 1)
        case int() | float():
            yield type(value)(value + 1)
        case (*some, str() as last):
            yield (*some, f"{last}9")
        case _:
            pass


def without(value: Any, forgotten: Field) -> Any:
    """Return a value as somebody sees it who has forgotten a field."""
    if isinstance(value, msgspec.Struct):
        fields = {
            field.name: default_of(field)
            if (type(value), field.name) == forgotten
            else without(getattr(value, field.name), forgotten)
            for field in msgspec.structs.fields(value)
        }
        return msgspec.structs.replace(value, **fields)
    if isinstance(value, tuple):
        return tuple(without(item, forgotten) for item in typing.cast("tuple[Any, ...]", value))
    if isinstance(value, dict):
        entries = typing.cast("dict[Any, Any]", value)
        return {key: without(item, forgotten) for key, item in entries.items()}
    return value
