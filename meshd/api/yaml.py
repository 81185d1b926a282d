"""YAML text as documents whose values know their lines, and from there typed values.

This module owns what is common to manifests and settings: limits on what is read at all, line
numbers, and errors that name file, line and field. It knows no kind of object.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Final, TypeVar, cast

import yaml

from meshd.api.base import Key
from meshd.api.decode import Path, decode_all
from meshd.api.finding import Finding
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import Json, JsonObject
from meshd.base.printable import printable

MAX_BYTES: Final = 8 * 1024 * 1024
"""Of one file. What people write is thousands of times smaller."""
MAX_NODES: Final = 500_000
"""Values of one file, aliases counted each time they are used: a bomb of aliases ends here."""
MAX_DEPTH: Final = 64
_LEAST: Final = -(2**63)
_MOST: Final = 2**64 - 1
"""What JSON's and protobuf's integers can hold."""

T = TypeVar("T")


_PART: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
"""An index or the name of a field."""


class ManifestError(InvalidInputError):
    """A mistake in a manifest. ``str(error)`` is ``file:line: field: reason``; the parts are for
    ``-o json``."""

    def __init__(self, source: str, line: int, reason: str, field: str = "") -> None:
        self.source = source
        self.line = line
        self.reason = reason
        self.field = field
        super().__init__(f"{source}:{line}: {field + ': ' if field else ''}{reason}")


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: plain values, and the line of each."""

    source: str
    line: int
    value: Json
    lines: dict[Path, int]

    def line_of(self, path: Path) -> int:
        """Return the line of a value, or of the nearest value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, self.line)

    def finding(
        self, at: Path, path: Path, message: str, about: Key, severity: str = "error"
    ) -> Finding:
        """Return a finding about the field at ``path`` of the object that stands at ``at``."""
        return Finding(
            file=self.source,
            line=self.line_of((*at, *path)),
            message=message,
            kind=about.kind,
            namespace=about.namespace,
            name=about.name,
            field=show_path(path),
            severity=severity,
        )

    def error(self, path: Path, reason: str) -> ManifestError:
        return ManifestError(self.source, self.line_of(path), reason, show_path(path))


def show_path(path: Path) -> str:
    """Format a path as users write it: ``spec.http[0].route``."""
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return shown.removeprefix(".")


def read_path(text: str) -> Path:
    """Return the path that ``show_path`` shows, of fields without dots or brackets in their
    names."""
    return tuple(int(number) if number else name for number, name in _PART.findall(text))


def read_text(path: pathlib.Path) -> str:
    """Return a file's text; its size is checked before it is read. Raises ManifestError."""
    source = printable(str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(source, 1, f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise ManifestError(source, 1, _too_big(f"more than {MAX_BYTES} bytes"))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ManifestError(source, line, "not UTF-8 text; save the file as UTF-8") from None


def read_documents(text: str, source: str) -> tuple[Document, ...]:
    """Return all documents of a text but empty ones. Raises ManifestError."""
    if len(text) > MAX_BYTES:
        raise ManifestError(source, 1, _too_big(f"{len(text)} characters"))
    try:
        documents = tuple(_Reader(text, source).documents())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        if mark and _is_indented_by_tab(text, mark.line):
            what = "a tab stands where only spaces may; indent with spaces"
        raise ManifestError(source, mark.line + 1 if mark else 1, f"not YAML: {what}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        reason = str(error).splitlines()[0]
        raise ManifestError(source, 1, f"not YAML: {reason}") from None
    return tuple(document for document in documents if document.value is not None)


def _is_indented_by_tab(text: str, index: int) -> bool:
    line = next(itertools.islice(text.split("\n"), index, None), "")
    return "\t" in line[: len(line) - len(line.lstrip())]


def _too_big(what: str) -> str:
    return f"{what}: over the limit of {MAX_BYTES}; split the file"


@dataclasses.dataclass(frozen=True, slots=True)
class _Anchored:
    """A value that aliases may name. ``size`` is the number of values in it, aliases expanded."""

    value: Json
    size: int


class _Reader:
    """Builds values from the parser's events, so that nothing is built before it is counted."""

    def __init__(self, text: str, source: str) -> None:
        # Not yaml.parse, which asks twice for each event. None comes only after the last event.
        self._next = cast("Callable[[], yaml.Event]", yaml.CSafeLoader(text).get_event)
        self._source = source
        self._spent = 0
        self._anchors: dict[str, _Anchored] = {}
        self._lines: dict[Path, int] = {}

    def documents(self) -> Iterator[Document]:
        while not isinstance(event := self._next(), yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors, self._lines = {}, {}
                first = self._next()
                line = self._lines[()] = _line(first)
                yield Document(self._source, line, self._value(first, ()), self._lines)

    def _error(self, event: yaml.Event, reason: str, path: Path = ()) -> ManifestError:
        return ManifestError(self._source, _line(event), reason, show_path(path))

    def _spend(self, event: yaml.Event, size: int) -> None:
        self._spent += size
        if self._spent > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES} values in one file; split it")

    def _value(self, event: yaml.Event, path: Path) -> Json:
        if len(path) > MAX_DEPTH:
            raise self._error(event, f"nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event)
        self._spend(event, 1)
        before = self._spent
        value: Json
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path)
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._mapping(path)
        else:
            value = self._sequence(path)
        if isinstance(event, yaml.NodeEvent) and event.anchor:
            self._anchors[event.anchor] = _Anchored(value, self._spent - before + 1)
        return value

    def _aliased(self, event: yaml.AliasEvent) -> Json:
        anchored = self._anchors.get(event.anchor)
        if anchored is None:
            raise self._error(event, f"not YAML: *{event.anchor} is defined nowhere before")
        self._spend(event, anchored.size)
        return anchored.value

    def _scalar(self, event: yaml.ScalarEvent, path: Path) -> Json:
        if event.tag is None and not event.implicit[0]:
            return event.value
        try:
            value = _plain(event.tag, event.value)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError):
            # PyYAML's constructors raise whatever the conversion raised.
            what = f"{event.tag} {event.value[:40]!r}" if event.tag else f"{event.value[:40]!r}"
            raise self._error(event, f"not YAML: {what} is not a value", path) from None
        if isinstance(value, int) and not _LEAST <= value <= _MOST:
            raise self._error(event, f"{event.value[:40]} is beyond 64 bits", path)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(event, f"{event.value[:40]} is not a number of JSON", path)
        return value

    def _sequence(self, path: Path) -> list[Json]:
        values: list[Json] = []
        lines, value_of, following = self._lines, self._value, self._next
        while not isinstance(event := following(), yaml.SequenceEndEvent):
            place = (*path, len(values))
            lines[place] = _line(event)
            values.append(value_of(event, place))
        return values

    def _mapping(self, path: Path) -> JsonObject:
        written: JsonObject = {}
        merged: JsonObject = {}
        lines, value_of, following = self._lines, self._value, self._next
        while not isinstance(event := following(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be a plain text", path)
            key: str = event.value
            place = (*path, key)
            if key == "<<" and event.implicit[0]:
                value = value_of(following(), place)
                merged = self._merge(event, value, path) | merged
                continue
            if key in written:
                raise self._error(event, "written twice", place)
            lines[place] = _line(event)
            written[key] = value_of(following(), place)
        return merged | written if merged else written

    def _merge(self, event: yaml.Event, value: Json, path: Path) -> JsonObject:
        """Return what ``<<`` merges in: one mapping or a list of them, the earlier winning."""
        parts = value if isinstance(value, list) else [value]
        result: JsonObject = {}
        for part in parts:
            if not isinstance(part, dict):
                raise self._error(event, "<< takes a mapping or a list of mappings", path)
            result = part | result
        return result


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1


_RESOLVER: Final = yaml.resolver.Resolver()


@functools.lru_cache(maxsize=8192)
def _plain(tag: str | None, text: str) -> Json:
    """Return the value of an unquoted or tagged scalar. Timestamps and 1:30 are text to our
    APIs."""
    meant: str = tag if tag else _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if meant.endswith((":int", ":float")) and ":" in text:
        return text
    node = yaml.ScalarNode(meant, text)
    value: object = yaml.constructor.SafeConstructor().construct_object(node)
    return value if isinstance(value, str | int | float | bool | None) else text


def decode(document: Document, value: Json, expected: type[T], at: Path = ()) -> T:
    """Return a typed value; ``at`` is where in the document ``value`` stands.

    Raises ManifestError with the place and, for an unknown key, the nearest known.
    """
    decoded, mistakes = decode_all(value, expected)
    if decoded is None:
        raise document.error((*at, *mistakes[0].path), mistakes[0].reason)
    return decoded
