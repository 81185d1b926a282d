"""YAML text → documents whose every value knows its line, and from there typed values.

Owns what is common to manifests and settings: limits on what is read at all, line numbers, and
errors that name file, line and field. It knows no kind of object.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
import yaml

from meshd.errors import InvalidInputError
from meshd.model.base import decode_scalar

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of one file. What people write is thousands of times smaller."""
MAX_NODES: Final = 500_000
"""Values of one file, aliases counted each time they are used: a bomb of aliases ends here."""
MAX_DEPTH: Final = 64

Path = tuple[str | int, ...]
T = TypeVar("T")

_PATH_PART: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


class ManifestError(InvalidInputError):
    """``str(error)`` is ``file:line: field: reason``; the parts are there for ``-o json``."""

    def __init__(self, source: str, line: int, reason: str, field: str = "") -> None:
        self.source = source
        self.line = line
        self.reason = reason
        self.field = field
        super().__init__(f"{source}:{line}: {field + ': ' if field else ''}{reason}")


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: plain values, and the line on which each stands."""

    source: str
    line: int
    value: Any
    lines: dict[Path, int]

    def line_of(self, path: Path) -> int:
        """The line of a value, or of the nearest value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.line)

    def error(self, path: Path, reason: str) -> ManifestError:
        return ManifestError(self.source, self.line_of(path), reason, show_path(path))


def show_path(path: Path) -> str:
    """``spec.http[0].route`` as people write it."""
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return shown.removeprefix(".")


def read_documents(text: str, source: str) -> tuple[Document, ...]:
    """All documents of a text; empty ones are left out. Raises ManifestError."""
    if len(text) > MAX_BYTES:
        raise ManifestError(
            source, 1, f"{len(text)} characters are over the limit of {MAX_BYTES}; split the file"
        )
    try:
        roots = list(yaml.compose_all(text, Loader=yaml.CSafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise ManifestError(source, mark.line + 1 if mark else 1, f"not YAML: {what}") from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise ManifestError(source, 1, f"not YAML: {reason}") from None
    budget = _Budget(source)
    documents = (_document(root, source, budget) for root in roots if root is not None)
    return tuple(document for document in documents if document.value is not None)


class _Budget:
    """Counts values, so that aliases cannot multiply without end."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = MAX_NODES

    def spend(self, node: yaml.Node, depth: int) -> None:
        self._left -= 1
        line = node.start_mark.line + 1
        if self._left < 0:
            raise ManifestError(self._source, line, f"more than {MAX_NODES} values in one file")
        if depth > MAX_DEPTH:
            raise ManifestError(self._source, line, f"nested more than {MAX_DEPTH} deep")


def _document(root: yaml.Node, source: str, budget: _Budget) -> Document:
    lines: dict[Path, int] = {}
    constructor = yaml.constructor.SafeConstructor()

    def value_of(node: yaml.Node, path: Path) -> Any:
        budget.spend(node, len(path))
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [value_of(child, (*path, index)) for index, child in enumerate(node.value)]
        try:
            value: Any = constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise ManifestError(source, node.start_mark.line + 1, f"not YAML: {error}") from None
        # Timestamps are text to every API that we read.
        return value if isinstance(value, str | int | float | bool | None) else node.value

    def mapping(node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ManifestError(source, line, "a key must be a plain text", show_path(path))
            key: str = key_node.value
            if key == "<<" and isinstance(child, yaml.MappingNode):
                result = mapping(child, path) | result
                continue
            if key in result:
                raise ManifestError(source, line, "written twice", show_path((*path, key)))
            lines[(*path, key)] = line
            result[key] = value_of(child, (*path, key))
        return result

    return Document(source, root.start_mark.line + 1, value_of(root, ()), lines)


def decode(document: Document, value: Any, expected: type[T], at: Path = ()) -> T:
    """A typed value, or ManifestError with the place and, for an unknown key, the nearest known.

    ``at`` is where in the document ``value`` stands.
    """
    try:
        return msgspec.convert(value, expected, dec_hook=decode_scalar)
    except msgspec.ValidationError as error:
        reason, path = _split(str(error))
        unknown = re.search(r"unknown field `([^`]+)`", reason)
        if unknown:
            key = unknown.group(1)
            hint = _nearest(key, _known_keys(expected, path))
            raise document.error((*at, *path, key), f"unknown field{hint}") from None
        raise document.error((*at, *path), reason) from None


def _split(message: str) -> tuple[str, Path]:
    """msgspec's ``reason - at `$.a[0].b` `` taken apart."""
    reason, _, where = message.rpartition(" - at `")
    if not reason:
        return message, ()
    parts = _PATH_PART.findall(where.rstrip("`"))
    return reason, tuple(int(index) if index.isdigit() else key or index for key, index in parts)


def _nearest(key: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(sorted(names))})" if names else ""


def _known_keys(expected: Any, path: Path) -> list[str]:
    """The keys of the struct at ``path`` inside ``expected``."""
    info: Any = msgspec.inspect.type_info(expected)
    for part in path:
        info = _step(info, part)
    info = _first(info, msgspec.inspect.StructType)
    return [field.encode_name for field in info.fields] if info else []


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
