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
from collections.abc import Iterable, Iterator
from types import GenericAlias
from typing import Annotated, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import inspect

from meshd.api.base import decode_scalar
from meshd.api.values import PATTERNS
from meshd.base.json_values import Json, JsonObject, text_in

Path = tuple[str | int, ...]
"""Where in a value another stands: keys and indices."""
T = TypeVar("T")
Info_co = TypeVar("Info_co", bound=inspect.Type, covariant=True)

_MOST_MISTAKES: Final = 20
"""Of one value, that are worth telling."""
_LONGEST_NAME: Final = 64
"""Characters of what is compared with known names, or shown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in a value, and its place."""

    path: Path
    reason: str


def decode_all(value: Json, expected: type[T]) -> tuple[T | None, tuple[Mistake, ...]]:
    """Return a typed value, or everything that is wrong with it (up to twenty mistakes)."""
    try:
        return _convert(value, expected), ()
    except msgspec.ValidationError as error:
        found = itertools.islice(_type(expected).mistakes(value, ()), _MOST_MISTAKES)
        return None, tuple(found) or (Mistake((), str(error)),)


def _convert(value: Json, expected: type[T]) -> T:
    return msgspec.convert(value, expected, dec_hook=decode_scalar, str_keys=True)


def _check(value: Json, expected: object) -> None:
    """Raises msgspec.ValidationError."""
    msgspec.convert(value, expected, dec_hook=decode_scalar, str_keys=True)


def nearest(key: str, known: Iterable[str]) -> str:
    """Return a hint in parentheses: the name that was probably meant, or all the known ones."""
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1) if len(key) <= _LONGEST_NAME else []
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(sorted(names))})" if names else ""


# ---- types, walked through beside values


class _Type(Generic[Info_co]):
    """The type of a value; this class: a text, a number, an enumeration."""

    def __init__(self, info: Info_co) -> None:
        self.info: Final = info

    @property
    def name(self) -> str:
        """Return the type's name in msgspec's words."""
        return _NAMES.get(type(self.info), "value")

    @functools.cached_property
    def _annotation(self) -> object:
        return _annotation(self.info)

    def mistakes(self, value: Json, path: Path) -> Iterator[Mistake]:
        try:
            _check(value, self._annotation)
        except msgspec.ValidationError as error:
            yield Mistake(path, _why(self, value) or str(error))


class _Struct(_Type[inspect.StructType]):
    @functools.cached_property
    def _fields(self) -> dict[str, _AnyType]:
        return {field.encode_name: _of(field.type) for field in self.info.fields}

    def mistakes(self, value: Json, path: Path) -> Iterator[Mistake]:
        if not isinstance(value, dict):
            yield _wrong(self, value, path)
            return
        parts = self._of_parts(value, path)
        if (first := next(parts, None)) is not None:
            yield first
            yield from parts
        elif hasattr(self.info.cls, "__post_init__"):
            # It may refuse what each of its fields would take.
            try:
                _check(value, self.info.cls)
            except msgspec.ValidationError as error:
                yield Mistake(path, str(error))

    def _of_parts(self, value: JsonObject, path: Path) -> Iterator[Mistake]:
        for key, part in value.items():
            if known := self._fields.get(key):
                yield from known.mistakes(part, (*path, key))
            elif self.info.forbid_unknown_fields:
                yield Mistake((*path, key), f"unknown field{nearest(key, self._fields)}")
        for field in self.info.fields:
            if field.required and field.encode_name not in value:
                yield Mistake((*path, field.encode_name), "is required")


class _Mapping(_Type[inspect.DictType]):
    @functools.cached_property
    def _value(self) -> _AnyType:
        return _of(self.info.value_type)

    def mistakes(self, value: Json, path: Path) -> Iterator[Mistake]:
        if not isinstance(value, dict):
            yield _wrong(self, value, path)
            return
        try:
            of_keys = GenericAlias(dict, (_annotation(self.info.key_type), None))
            _check(dict.fromkeys(value), of_keys)
        except msgspec.ValidationError:
            yield Mistake(path, f"expected {_shown(_of(self.info.key_type).name)} as each key")
        for key, part in value.items():
            yield from self._value.mistakes(part, (*path, key))


class _List(_Type[inspect.CollectionType]):
    @functools.cached_property
    def _item(self) -> _AnyType:
        return _of(self.info.item_type)

    def mistakes(self, value: Json, path: Path) -> Iterator[Mistake]:
        if not isinstance(value, list):
            yield _wrong(self, value, path)
            return
        for index, part in enumerate(value):
            yield from self._item.mistakes(part, (*path, index))


class _Union(_Type[inspect.UnionType]):
    @functools.cached_property
    def _options(self) -> list[_AnyType]:
        listed = (one for one in self.info.types if not isinstance(one, inspect.NoneType))
        return [_of(one) for one in listed]

    def mistakes(self, value: Json, path: Path) -> Iterator[Mistake]:
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


_AnyType: TypeAlias = _Type[inspect.Type]
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
_NAMES_OF_VALUES: Final[dict[type, str]] = {
    str: "str",
    bool: "bool",
    int: "int",
    float: "float",
    dict: "object",
    list: "array",
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
def _type(expected: type[object]) -> _AnyType:
    return _of(inspect.type_info(expected))


def _of(info: inspect.Type) -> _AnyType:
    match info:
        case inspect.StructType():
            return _Struct(info)
        case inspect.DictType():
            return _Mapping(info)
        case inspect.VarTupleType() | inspect.ListType():
            return _List(info)
        case inspect.UnionType():
            return _Union(info)
        case _:
            return _Type(info)


def _shown(name: str) -> str:
    return _SHOWN.get(name, name)


def _name_of(value: Json) -> str:
    return _NAMES_OF_VALUES.get(type(value), "null")


def _wrong(expected: _AnyType, value: Json, path: Path) -> Mistake:
    return Mistake(path, f"expected {_shown(expected.name)}, not {_shown(_name_of(value))}")


def _annotation(info: inspect.Type) -> object:
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
    return bool if isinstance(info, inspect.BoolType) else object


def _why(expected: _AnyType, value: Json) -> str:
    """Return why msgspec refuses a value; empty if that is for a type of ours to say."""
    info, options = expected.info, _options(expected.info)
    wanted, got = "str" if options else expected.name, _name_of(value)
    if wanted in _SHOWN and got != wanted and (wanted, got) != ("float", "int"):
        quotes = "; put it in quotes" if wanted == "str" and got in {"int", "float", "bool"} else ""
        return f"expected {_shown(wanted)}, not {_shown(got)}{quotes}"
    if options:
        return f'"{text_in(value)[:_LONGEST_NAME]}" is not one of {", ".join(options)}'
    if isinstance(info, inspect.IntType | inspect.FloatType):
        bounds = (("at least", info.ge), ("at most", info.le))
        listed = " and ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)
        return f"expected {_shown(wanted)} of {listed}" if listed else ""
    if isinstance(info, inspect.StrType):
        too_long = info.max_length is not None and len(text_in(value)) > info.max_length
        if too_long or info.pattern is None:
            return f"expected at most {info.max_length} characters"
        return f"expected {PATTERNS.get(info.pattern, info.pattern)}"
    return ""


def _options(info: inspect.Type) -> list[str]:
    if isinstance(info, inspect.EnumType):
        return [str(one.value) for one in info.cls]
    return [str(one) for one in info.values] if isinstance(info, inspect.LiteralType) else []
