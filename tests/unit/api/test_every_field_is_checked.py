"""Every field of every kind has values that are complained of, or a reason why it has none."""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Final

import msgspec
import pytest

from meshd.api import dispatch
from meshd.api.base import Duration, ObjectMeta
from meshd.api.dispatch import check_fields
from meshd.api.kubernetes.types import Secret, ServiceAccount, ServicePort
from meshd.api.read import Read, read_sources
from meshd.api.virtual_service.types import HTTPBody, HTTPMatchRequest
from tests.every_field import NODEFAULT, Field, altered, every_field

TESTS: Final = Path(__file__).parents[2]
MESHES: Final = (TESTS / "unit" / "compile" / "fields.yaml", TESTS / "fuzz" / "mesh.yaml")
TEXTS: Final = ("", "\0", "a b", "a\nb", "..", "-a", "/", "(", "a" * 300)

ANY: Final[Mapping[Field, str]] = {
    (ServiceAccount, "metadata"): "the reader checks names and labels",
    (Secret, "metadata"): "the reader checks names and labels",
    (ObjectMeta, "namespace"): "the reader checks names",
    (ObjectMeta, "resource_version"): "the store leaves it out",
    (ObjectMeta, "generate_name"): "the store refuses an object without a name",
    (ServicePort, "app_protocol"): "one that is not known is found out from what is sent",
    (ServicePort, "node_port"): "it means nothing here",
    (Secret, "type"): "any text is one",
    (Secret, "string_data"): "what proxies cannot use is never sent to them",
    (HTTPMatchRequest, "scheme"): "regular expressions are checked, other texts may be any",
    (HTTPMatchRequest, "authority"): "regular expressions are checked, other texts may be any",
    (HTTPBody, "string"): "an answer may be any text",
}
"""Fields that take any value of their type, and why."""


def mesh(path: Path) -> tuple[Read, ...]:
    reading = read_sources([(path.name, path.read_text(encoding="utf-8"))], "shop")
    assert not reading.errors
    return reading.objects


def bad(value: Any, default: Any) -> Iterator[Any]:
    """Yield values of the same type of which at least one should be wrong."""
    match value:
        case bool():
            pass
        case Duration():
            yield from map(Duration, (-1, 0, 1e-9, 1e12))
        case int():
            yield from (-1, 0, 99, 601, 2**16, 2**40)
        case float():
            yield from (-1.0, 101.0, float("nan"))
        case str():
            yield from TEXTS
        case (str() as first, *_):
            yield from ((text,) for text in TEXTS)
            yield (first, first)
        case tuple():
            yield value[:0]
            yield typing.cast("tuple[Any, ...]", value) * 2000
        case dict():
            yield from _bad_entries(typing.cast("dict[Any, Any]", value))
        case _ if default is not NODEFAULT:
            yield default
        case _:
            pass


def _bad_entries(value: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    yield {}
    for key, item in value.items():
        others = TEXTS if isinstance(key, str) else (-1, 0, 2**16)
        yield from ({other: item} for other in others)
        if isinstance(item, str):
            yield from ({key: text} for text in TEXTS)
        if isinstance(item, int):
            yield from ({key: number} for number in (-1, 2**40))


def refused() -> set[Field]:
    """Return the fields of which a value is refused, or ignored with a warning."""
    found: set[Field] = set()
    for read in (read for path in MESHES for read in mesh(path)):
        before = complaints(read)
        for chain, other in altered(read.object, bad):
            if is_closed(chain[-1]) or found.issuperset(chain):
                continue
            if complaints(Read(other, read.document, read.at)) - before:
                found.update(chain)
    return found


def complaints(read: Read) -> set[tuple[str, str]]:
    return {(finding.field, finding.message) for finding in check_fields([read])}


@functools.cache
def is_closed(field: Field) -> bool:
    """Return whether a field has few values, so that decoding refuses all others."""
    (annotation,) = (one.type for one in msgspec.structs.fields(field[0]) if one.name == field[1])
    return _is_closed(annotation)


def _is_closed(annotation: Any) -> bool:
    if typing.get_origin(annotation) is typing.Literal or annotation in {bool, NoneType}:
        return True
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return all(_is_closed(field.type) for field in msgspec.structs.fields(annotation))
    parts = typing.get_args(annotation)
    return bool(parts) and all(map(_is_closed, parts))


def same(value: Any, _default: Any) -> Iterator[Any]:
    yield value


def told() -> set[Field]:
    """Return the fields of which any value is complained of."""
    found: set[Field] = set()
    for read in (read for path in MESHES for read in mesh(path)):
        places = {finding.field.lower() for finding in check_fields([read])}
        for chain, _ in altered(read.object, same):
            name = chain[-1][1].replace("_", "")
            if any(place.endswith(f".{name}") for place in places):
                found.add(chain[-1])
    return found


def test_every_field_has_wrong_values_or_there_is_a_reason_why_it_takes_any() -> None:
    found = refused()
    unchecked = {
        f"{kind.__name__}.{name}"
        for kind, name in every_field().keys() - found - told() - ANY.keys()
        if not is_closed((kind, name)) and name != "metadata"
    }

    assert unchecked == set()
    assert {f"{kind.__name__}.{name}" for kind, name in ANY.keys() & found} == set()


def nothing(*_: object) -> None:
    pass


def test_a_kind_that_is_not_checked_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = refused()
    monkeypatch.setattr(dispatch, "CHECKS", {})
    monkeypatch.setattr(dispatch, "check_texts", nothing)

    assert len(refused()) < len(before) / 4
