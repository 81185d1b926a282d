"""Checks values of the model that come from outside: typed, or an error that says what is valid."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import msgspec

from meshd.api.values import PATTERNS
from meshd.base.errors import UNDECODABLE, InvalidInputError

T = TypeVar("T")
P = ParamSpec("P")
_PATTERN: Final = re.compile(r"Expected `str` matching regex ('.*'|\".*\")", re.DOTALL)
_DESCRIPTIONS: Final = {repr(pattern): text for pattern, text in PATTERNS.items()}


def decode(raw: bytes | msgspec.Raw, expected: type[T]) -> T:
    """Decode JSON. Raises InvalidInputError."""
    try:
        return msgspec.json.decode(raw, type=expected)
    except UNDECODABLE as error:
        raise InvalidInputError(in_words(error)) from None


def convert(value: object, expected: type[T]) -> T:
    """Convert plain values. Raises InvalidInputError."""
    try:
        return msgspec.convert(value, expected, str_keys=True)
    except UNDECODABLE as error:
        raise InvalidInputError(in_words(error)) from None


def build(kind: Callable[P, T], *arguments: P.args, **fields: P.kwargs) -> T:
    """Return a struct of unchecked fields. Raises InvalidInputError."""
    try:
        made = kind(*arguments, **fields)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(str(error)) from None
    return convert(msgspec.to_builtins(made), type(made))


def in_words(error: Exception) -> str:
    """Explain msgspec's error: it quotes the pattern that a text does not match, which few can
    read."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    message = str(error)
    if (found := _PATTERN.search(message)) and (text := _DESCRIPTIONS.get(found[1])):
        return message.replace(found[0], f"Expected {text}")
    return message
