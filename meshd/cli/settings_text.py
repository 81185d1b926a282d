"""Writes a few keys into the text of a settings file and keeps the rest, comments too. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOP = re.compile(r"[^\s#]")


def with_values(text: str, values: Mapping[tuple[str, ...], str]) -> str:
    """Set ``values``, by path of one or two keys; no value contains a quote or a backslash."""
    lines = text.splitlines()
    for path, value in values.items():
        lines = _top(lines, path[0], value) if len(path) == 1 else _nested(lines, path, value)
    return "\n".join(lines) + "\n"


def _top(lines: list[str], key: str, value: str) -> list[str]:
    return _put(lines, range(len(lines)), "", key, value, len(lines))


def _nested(lines: list[str], path: tuple[str, ...], value: str) -> list[str]:
    section, key = path
    start = next((n for n, line in enumerate(lines) if _is_key(line, section, "")), None)
    if start is None:
        return [*lines, f"{section}:", f'  {key}: "{value}"']
    if lines[start].split(":", 1)[1].split("#")[0].strip() in {"{}", "null", "~"}:
        lines = [*lines[:start], f"{section}:", *lines[start + 1 :]]
    end = next((n for n in range(start + 1, len(lines)) if _TOP.match(lines[n])), len(lines))
    inside = next((line for line in lines[start + 1 : end] if re.match(r" +[^\s#]", line)), "  ")
    indent = inside[: len(inside) - len(inside.lstrip())] or "  "
    return _put(lines, range(start + 1, end), indent, key, value, start + 1)


def _put(lines: list[str], where: range, indent: str, key: str, value: str, at: int) -> list[str]:
    """Replace the line that has the key, or that shows it in a comment, or insert a line."""
    line = f'{indent}{key}: "{value}"'
    for is_it in (_is_key, _is_shown):
        for number in where:
            if is_it(lines[number], key, indent):
                return [*lines[:number], line, *lines[number + 1 :]]
    return [*lines[:at], line, *lines[at:]]


def _is_key(line: str, key: str, indent: str) -> bool:
    return re.match(rf"{indent}{re.escape(key)}\s*:(\s|$)", line) is not None


def _is_shown(line: str, key: str, indent: str) -> bool:
    return re.match(rf"{indent}#{re.escape(key)}:(\s|$)", line) is not None
