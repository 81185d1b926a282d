"""Decodes plain values into typed ones, or explains in our words what is wrong with them.

It knows msgspec's types and messages, so that no other module has to; nothing of files or of YAML.
A valid value costs one conversion. An invalid one is walked through once beside its type, whatever
its size.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import inspect

from meshd.api.base import decode_scalar
from meshd.api.checked import in_words

Path = tuple[str | int, ...]
"""Where in a value another stands: keys and indices."""
T = TypeVar("T")

_MOST_MISTAKES: Final = 20
"""Of one value, that are worth telling."""
_LONGEST_NAME: Final = 64
"""Characters of what is compared with known names, or shown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in a value, and its place."""

    path: Path
    reason: str


def decode_all(value: Any, expected: type[T]) -> tuple[T | None, tuple[Mistake, ...]]:
    """Return a typed value, or everything that is wrong with it (up to twenty mistakes)."""
    try:
        return _converted(value, expected), ()
    except msgspec.ValidationError as error:
        found = itertools.islice(_type(expected).mistakes(value, ()), _MOST_MISTAKES)
        # A struct may refuse what each of its fields would take.
        return None, tuple(found) or (_whole(str(error)),)


def _converted(value: Any, expected: Any) -> Any:
    return msgspec.convert(value, expected, dec_hook=decode_scalar, str_keys=True)


_PLACE: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


def _whole(message: str) -> Mistake:
    """Split msgspec's ``reason - at `$.a[0].b` ``."""
    reason, _, where = message.rpartition(" - at `")
    if not reason:
        return Mistake((), message)
    parts = _PLACE.findall(where)
    return Mistake(tuple(int(index) if index else key for key, index in parts), reason)


def nearest(key: str, known: Iterable[str]) -> str:
    """Return a hint in parentheses: the name that was probably meant, or all the known ones."""
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1) if len(key) <= _LONGEST_NAME else []
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(sorted(names))})" if names else ""


# ---- types, walked through beside values


class _Type:
    """The type of a value; this class: a text, a number, an enumeration."""

    def __init__(self, info: Any) -> None:
        self.info = info

    @property
    def name(self) -> str:
        """Return the type's name in msgspec's words."""
        return _NAMES.get(type(self.info), "value")

    @functools.cached_property
    def _annotation(self) -> Any:
        return _annotation(self.info)

    def mistakes(self, value: Any, path: Path) -> Iterator[Mistake]:
        try:
            _converted(value, self._annotation)
        except msgspec.ValidationError as error:
            yield Mistake(path, _in_our_words(in_words(error), self.info))


class _Struct(_Type):
    @functools.cached_property
    def _fields(self) -> dict[str, _Type]:
        return {field.encode_name: _of(field.type) for field in self.info.fields}

    def mistakes(self, value: Any, path: Path) -> Iterator[Mistake]:
        if not isinstance(value, dict):
            yield _wrong(self, value, path)
            return
        for key, part in value.items():
            if known := self._fields.get(key):
                yield from known.mistakes(part, (*path, key))
            elif self.info.forbid_unknown_fields:
                yield Mistake((*path, key), f"unknown field{nearest(key, self._fields)}")
        for field in self.info.fields:
            if field.required and field.encode_name not in value:
                yield Mistake((*path, field.encode_name), "is required")


class _Mapping(_Type):
    @functools.cached_property
    def _value(self) -> _Type:
        return _of(self.info.value_type)

    def mistakes(self, value: Any, path: Path) -> Iterator[Mistake]:
        if not isinstance(value, dict):
            yield _wrong(self, value, path)
            return
        try:
            _converted(dict.fromkeys(value), dict[_annotation(self.info.key_type), None])
        except msgspec.ValidationError:
            yield Mistake(path, f"expected {_shown(_of(self.info.key_type).name)} as each key")
        for key, part in value.items():
            yield from self._value.mistakes(part, (*path, key))


class _List(_Type):
    @functools.cached_property
    def _item(self) -> _Type:
        return _of(self.info.item_type)

    def mistakes(self, value: Any, path: Path) -> Iterator[Mistake]:
        if not isinstance(value, list):
            yield _wrong(self, value, path)
            return
        for index, part in enumerate(value):
            yield from self._item.mistakes(part, (*path, index))


class _Union(_Type):
    @functools.cached_property
    def _options(self) -> list[_Type]:
        listed = (one for one in self.info.types if not isinstance(one, inspect.NoneType))
        return [_of(one) for one in listed]

    def mistakes(self, value: Any, path: Path) -> Iterator[Mistake]:
        if value is None and len(self._options) < len(self.info.types):
            return
        found = [list(option.mistakes(value, path)) for option in self._options]
        if not all(found):
            return
        if len(found) == 1:
            yield from found[0]
        else:
            names = " | ".join(option.name for option in self._options)
            yield Mistake(path, f"expected {names}, not {_shown(_name_of(value))}")


_CLASSES: Final[dict[type, type[_Type]]] = {
    inspect.StructType: _Struct,
    inspect.DictType: _Mapping,
    inspect.VarTupleType: _List,
    inspect.ListType: _List,
    inspect.UnionType: _Union,
}
_NAMES: Final[dict[type, str]] = {
    inspect.StructType: "object",
    inspect.DictType: "object",
    inspect.VarTupleType: "array",
    inspect.ListType: "array",
    inspect.IntType: "int",
    inspect.FloatType: "float",
    inspect.BoolType: "bool",
    inspect.StrType: "str",
}
_SHOWN: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "nothing",
}


@functools.cache
def _type(expected: Any) -> _Type:
    return _of(inspect.type_info(expected))


def _of(info: Any) -> _Type:
    return _CLASSES.get(type(info), _Type)(info)


def _shown(name: str) -> str:
    return _SHOWN.get(name, name)


def _name_of(value: Any) -> str:
    known = {str: "str", bool: "bool", int: "int", float: "float", dict: "object", list: "array"}
    return known.get(type(value), "null")


def _wrong(expected: _Type, value: Any, path: Path) -> Mistake:
    return Mistake(path, f"expected {_shown(expected.name)}, not {_shown(_name_of(value))}")


def _annotation(info: Any) -> Any:
    """Return the type to which msgspec's information belongs."""
    if isinstance(info, inspect.IntType):
        return Annotated[int, msgspec.Meta(ge=info.ge, le=info.le)]
    if isinstance(info, inspect.FloatType):
        return Annotated[float, msgspec.Meta(ge=info.ge, le=info.le)]
    if isinstance(info, inspect.StrType):
        low, high = info.min_length, info.max_length
        return Annotated[str, msgspec.Meta(min_length=low, max_length=high, pattern=info.pattern)]
    if isinstance(info, inspect.LiteralType):
        return Literal[info.values]
    if isinstance(info, inspect.EnumType | inspect.CustomType):
        return info.cls
    return bool if isinstance(info, inspect.BoolType) else Any


def _in_our_words(message: str, info: Any) -> str:
    if wrong := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", message):
        wanted, got = wrong.groups()
        quotes = "; put it in quotes" if wanted == "str" and got in {"int", "float", "bool"} else ""
        return f"expected {_shown(wanted)}, not {_shown(got)}{quotes}"
    if choice := re.fullmatch(r"Invalid enum value '(.*)'", message, re.DOTALL):
        options = ", ".join(map(str, getattr(info, "values", ())))
        return f'"{choice[1][:_LONGEST_NAME]}" is not one of {options}'
    return message
