"""The part of kubectl's ``-o jsonpath=TEMPLATE`` that scripts use. Pure.

Of https://kubernetes.io/docs/reference/kubectl/jsonpath/ these are read: ``{.a.b}``, ``{['a']}``,
``{.a[0]}``, ``{.a[-1]}``, ``{.a[*]}``, ``{..a}``, ``{.a[?(@.b=="c")]}``, ``{"text"}``, and ``{range
.a[*]}…{end}``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

import typer

from meshd.base.json_values import Json, list_in

_PART: Final = re.compile(r'\{((?:"(?:[^"\\]|\\.)*"|\'[^\']*\'|[^{}"\'])*)\}|([^{}]+)')
_STEP: Final = re.compile(
    r"""\.\.(?P<deep>[\w/-]+)
      | \.?\[(?P<index>-?\d+)\]
      | \.?\[(?P<all>\*)\] | \.(?P<star>\*)
      | \.?\[(?P<quote>['"])(?P<key>[^'"]*)(?P=quote)\]
      | \.?\[\?\(\s*@(?P<field>(?:\.(?:[\w/-]|\\.)+)+)
            \s*(?P<verb>==|!=)\s*(?P<value>[^()\s]+)\s*\)\]
      | \.(?P<name>(?:[\w/-]|\\.)+)""",
    re.VERBOSE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Node:
    """A text, a path, or a part that is repeated for each value of a path."""

    text: str = ""
    path: str | None = None
    body: tuple[_Node, ...] | None = None


def render(template: str, value: Json) -> str:
    """Raises typer.BadParameter when the template is not supported."""
    if "{" not in template:
        template = "{" + template + "}"
    nodes, rest = _parse(_tokens(template), nested=False)
    if rest:
        raise _error("{end} without {range}")
    return "".join(_rendered(nodes, value))


def _tokens(template: str) -> list[tuple[bool, str]]:
    """Return pairs of a flag, set for parts in braces, and the part."""
    tokens: list[tuple[bool, str]] = []
    position = 0
    while position < len(template):
        match = _PART.match(template, position)
        if match is None:
            raise _error(f"unbalanced brace at {template[position:]!r}")
        inside, text = match.groups()
        tokens.append((inside is not None, inside.strip() if inside is not None else text))
        position = match.end()
    return tokens


def _parse(
    tokens: Sequence[tuple[bool, str]], *, nested: bool
) -> tuple[tuple[_Node, ...], Sequence[tuple[bool, str]]]:
    nodes: list[_Node] = []
    while tokens:
        (braced, text), tokens = tokens[0], tokens[1:]
        if not braced:
            nodes.append(_Node(text=text))
        elif text == "end":
            if not nested:
                return tuple(nodes), [(True, text)]
            return tuple(nodes), tokens
        elif text.startswith("range "):
            body, tokens = _parse(tokens, nested=True)
            nodes.append(_Node(path=text.removeprefix("range ").strip(), body=body))
        elif text[:1] in {'"', "'"}:
            nodes.append(_Node(text=_unquoted(text)))
        else:
            nodes.append(_Node(path=text))
    if nested:
        raise _error("{range} without {end}")
    return tuple(nodes), ()


def _unquoted(text: str) -> str:
    try:
        return json.loads(text) if text[0] == '"' else text.strip("'")
    except ValueError:
        raise _error(f"{text} is no text") from None


def _rendered(nodes: Sequence[_Node], value: Json) -> Iterator[str]:
    for node in nodes:
        if node.path is None:
            yield node.text
            continue
        found = _values(node.path, value)
        if node.body is None:
            yield " ".join(_shown(one) for one in found)
        else:
            for one in found:
                yield from _rendered(node.body, one)


def _values(path: str, value: Json) -> list[Json]:
    """Return the values of a path, which may begin with ``@`` or ``$``; both are the value
    itself."""
    rest = path.removeprefix("$").removeprefix("@")
    if rest and rest[0] not in ".[":
        rest = f".{rest}"
    found: list[Json] = [value]
    while rest not in {"", "."}:
        match = _STEP.match(rest)
        if match is None:
            raise _error(f"{rest!r} of {path!r} is not supported")
        found = [part for one in found for part in _step(match.groupdict(), one)]
        rest = rest[match.end() :]
    return found


def _step(step: dict[str, str | None], value: Json) -> Iterator[Json]:
    if step["deep"]:
        yield from _below(step["deep"], value)
    elif step["index"] is not None:
        index = int(step["index"])
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]
    elif step["all"] or step["star"]:
        yield from value.values() if isinstance(value, dict) else list_in(value)
    elif step["field"]:
        wanted = _literal(step["value"] or "")
        for one in list_in(value):
            if (wanted in _values(step["field"], one)) == (step["verb"] == "=="):
                yield one
    else:
        key = step["key"] if step["key"] is not None else (step["name"] or "").replace("\\", "")
        if isinstance(value, dict) and key in value:
            yield value[key]


def _below(key: str, value: Json) -> Iterator[Json]:
    if isinstance(value, dict) and key in value:
        yield value[key]
    for part in value.values() if isinstance(value, dict) else list_in(value):
        yield from _below(key, part)


def _literal(text: str) -> Json:
    if text[:1] in {'"', "'"}:
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shown(value: Json) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _error(reason: str) -> typer.BadParameter:
    return typer.BadParameter(f"jsonpath: {reason}")
