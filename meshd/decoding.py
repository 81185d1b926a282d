"""Plain values → typed ones, or what is wrong with them in our words.

Knows msgspec's types and messages, so that nobody else has to; nothing of files or of YAML.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec

from meshd.model.base import decode_scalar

Path = tuple[str | int, ...]
"""Where in a value another stands: keys and indices."""
T = TypeVar("T")

_PATH_PART: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong with a value, and where in it."""

    path: Path
    reason: str


def decode_all(value: Any, expected: type[T]) -> tuple[T | None, tuple[Mistake, ...]]:
    """A typed value, or everything that is wrong with it (up to twenty things).

    What is wrong is left out and the rest looked at again; what only misses because it was left
    out is no mistake of its own. ``value`` is changed in doing so.
    """
    mistakes: list[Mistake] = []
    left_out: set[Path] = set()
    while len(mistakes) < 20:
        try:
            result = msgspec.convert(value, expected, dec_hook=decode_scalar, str_keys=True)
        except msgspec.ValidationError as error:
            mistake = explain(str(error), expected, value)
        else:
            return (None if mistakes else result), tuple(mistakes)
        if mistake.path not in left_out:
            mistakes.append(mistake)
        left_out.add(mistake.path)
        if not _leave_out(value, mistake.path):
            # It is missing: what it is missing from cannot be judged further.
            left_out.add(mistake.path[:-1])
            if not _leave_out(value, mistake.path[:-1]):
                break
    return None, tuple(mistakes)


def _leave_out(value: Any, path: Path) -> bool:
    """Remove what stands at ``path``; of a list all, lest the rest change places."""
    if not path:
        return False
    around = value
    for part in path[:-1]:
        try:
            around = around[part]
        except (LookupError, TypeError):
            return False
    if isinstance(around, dict):
        return around.pop(path[-1], path) is not path
    if isinstance(around, list) and around:
        around.clear()
        return True
    return False


def explain(message: str, expected: Any, value: Any) -> Mistake:
    """msgspec's message in our words, with the place it is about."""
    reason, path = _split(message)
    path = _resolve(expected, value, path)
    if unknown := re.search(r"unknown field `([^`]+)`", reason):
        key = unknown.group(1)
        return Mistake((*path, key), f"unknown field{nearest(key, _known_keys(expected, path))}")
    if missing := re.search(r"missing required field `([^`]+)`", reason):
        return Mistake((*path, missing.group(1)), "is required")
    if wrong := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", reason):
        wanted, got = wrong.groups()
        wanted = wanted.removesuffix(" | null")
        if " - at `key` in" in message:
            return Mistake(path, f"expected {_TYPES.get(wanted, wanted)} as each key")
        quotes = "; put it in quotes" if wanted == "str" and got in _QUOTABLE else ""
        return Mistake(
            path, f"expected {_TYPES.get(wanted, wanted)}, not {_TYPES.get(got, got)}{quotes}"
        )
    if choice := re.fullmatch(r"Invalid enum value '(.*)'", reason, re.DOTALL):
        options = _choices(expected, path)
        return Mistake(path, f'"{choice.group(1)}" is not one of {", ".join(options)}')
    return Mistake(path, reason)


_QUOTABLE: Final = {"int", "float", "bool"}
_TYPES: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "nothing",
}


def _split(message: str) -> tuple[str, Path]:
    """msgspec's ``reason - at `$.a[0].b` `` taken apart."""
    reason, _, where = message.rpartition(" - at `")
    if not reason:
        return message, ()
    parts = _PATH_PART.findall(where.removeprefix("key` in `").rstrip("`"))
    return reason, tuple(int(index) if index.isdigit() else key or index for key, index in parts)


def _resolve(expected: Any, value: Any, path: Path) -> Path:
    """Put the key in place of msgspec's ``[...]``, which stands for some key of a dict."""
    if "..." not in path:
        return path
    at = path.index("...")
    found: Any = value
    for part in path[:at]:
        found = found[part]
    for key in list(found)[:256]:
        others = {name: found.pop(name) for name in list(found) if name != key}
        try:
            msgspec.convert(value, expected, dec_hook=decode_scalar, str_keys=True)
        except msgspec.ValidationError as error:
            if _split(str(error))[1] == path:
                return _resolve(expected, value, (*path[:at], key, *path[at + 1 :]))
        finally:
            found.update(others)
    return path[:at]


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint in parentheses: the name that was meant, or all the known ones."""
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(sorted(names))})" if names else ""


def _known_keys(expected: Any, path: Path) -> list[str]:
    """The keys of the struct at ``path`` inside ``expected``."""
    info = _first(_info_at(expected, path), msgspec.inspect.StructType)
    return [field.encode_name for field in info.fields] if info else []


def _choices(expected: Any, path: Path) -> list[str]:
    info = _first(_info_at(expected, path), msgspec.inspect.LiteralType)
    return [str(option) for option in info.values] if info else []


def _info_at(expected: Any, path: Path) -> Any:
    info: Any = msgspec.inspect.type_info(expected)
    for part in path:
        info = _step(info, part)
    return info


def _first(info: Any, wanted: type) -> Any:
    if isinstance(info, wanted):
        return info
    options: tuple[Any, ...] = getattr(info, "types", ())
    return next((option for option in options if isinstance(option, wanted)), None)


def _step(info: Any, part: str | int) -> Any:
    struct = _first(info, msgspec.inspect.StructType)
    if struct and isinstance(part, str):
        return next((f.type for f in struct.fields if f.encode_name == part), None)
    mapping = _first(info, msgspec.inspect.DictType)
    if mapping and isinstance(part, str):
        return mapping.value_type
    sequence = _first(info, msgspec.inspect.VarTupleType)
    return sequence.item_type if sequence else None
