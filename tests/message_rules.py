"""Envoy's own rules for its messages: those of protoc-gen-validate, which descriptors hold.

Envoy refuses a resource that breaks one of them. What the compiler prints is held against all of
them, so that no test has to name the field.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from google.protobuf import any_pb2, duration_pb2, symbol_database, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from validate import validate_pb2

from meshd.xds.resources import Resource

_WRAPPERS: Final = frozenset(
    kind.DESCRIPTOR.full_name
    for kind in (
        *(wrappers_pb2.BoolValue, wrappers_pb2.BytesValue, wrappers_pb2.DoubleValue),
        *(wrappers_pb2.FloatValue, wrappers_pb2.Int32Value, wrappers_pb2.Int64Value),
        *(wrappers_pb2.StringValue, wrappers_pb2.UInt32Value, wrappers_pb2.UInt64Value),
    )
)
_HEADER: Final = {
    (validate_pb2.HTTP_HEADER_NAME, True): re.compile(r":?[0-9a-zA-Z!#$%&'*+\-.^_|~`]+\Z"),
    (validate_pb2.HTTP_HEADER_VALUE, True): re.compile("[^\0-\x08\x0a-\x1f\x7f]*\\Z"),
    (validate_pb2.HTTP_HEADER_NAME, False): re.compile("[^\0\n\r]*\\Z"),
    (validate_pb2.HTTP_HEADER_VALUE, False): re.compile("[^\0\n\r]*\\Z"),
}
_Rules = Any
"""Rules of one type of value; their classes have no type in common."""
_Broken = Iterator[str]


class Rules:
    """What was packed inside messages, and has broken none, is not looked at again."""

    def __init__(self) -> None:
        self._kept: set[int] = set()

    def broken(self, message: Message) -> _Broken:
        """Yield a line for each rule that a message breaks, or one inside it, at whatever depth."""
        yield from self._message(message, message.DESCRIPTOR.name)

    def _message(self, message: Message, path: str) -> _Broken:
        if isinstance(message, any_pb2.Any):
            yield from self._packed(message, path)
            return
        descriptor = message.DESCRIPTOR
        if _is_free(descriptor):
            return
        for name in _required_choices(descriptor):
            if message.WhichOneof(name) is None:
                yield f"{path}: none of {name}"
        for field, rules in _fields(descriptor):
            yield from self._field(message, field, rules, f"{path}.{field.name}")

    def _packed(self, packed: any_pb2.Any, path: str) -> _Broken:
        if not packed.type_url:
            return
        try:
            kind = symbol_database.Default().GetSymbol(packed.TypeName())
        except KeyError:
            yield f"{path}: {packed.TypeName()} is no type that is known"
            return
        known = hash((packed.type_url, packed.value))
        if known in self._kept:
            return
        found = tuple(
            self._message(kind.FromString(packed.value), f"{path}<{kind.DESCRIPTOR.name}>")
        )
        yield from found
        if not found:
            self._kept.add(known)

    def _field(self, message: Message, field: FieldDescriptor, rules: _Rules, path: str) -> _Broken:
        value = getattr(message, field.name)
        if _is_map(field):
            yield from self._map(value, field, rules, path)
        elif field.is_repeated:
            yield from self._repeated(value, field, rules, path)
        elif not field.has_presence or message.HasField(field.name):
            yield from self._single(value, field, rules, path)
        elif rules and not field.containing_oneof and _is_required(rules):
            yield f"{path}: is required"

    def _map(self, value: Any, field: FieldDescriptor, rules: _Rules, path: str) -> _Broken:
        own = rules.map if rules else validate_pb2.MapRules()
        if own.ignore_empty and not value:
            return
        yield from _count(len(value), own, "min_pairs", "max_pairs", path)
        by_name = field.message_type.fields_by_name  # pyright: ignore[reportOptionalMemberAccess]
        for key in value:
            yield from self._single(key, by_name["key"], own.keys, f"{path}[{key!r}]")
            yield from self._single(value[key], by_name["value"], own.values, f"{path}[{key!r}]")

    def _repeated(self, values: Any, field: FieldDescriptor, rules: _Rules, path: str) -> _Broken:
        own = rules.repeated if rules else validate_pb2.RepeatedRules()
        if own.ignore_empty and not values:
            return
        yield from _count(len(values), own, "min_items", "max_items", path)
        if own.unique and len({repr(one) for one in values}) < len(values):
            yield f"{path}: items are not unique"
        for index, one in enumerate(values):
            yield from self._single(one, field, own.items, f"{path}[{index}]")

    def _single(self, value: Any, field: FieldDescriptor, rules: _Rules, path: str) -> _Broken:
        if isinstance(value, Message):
            if rules and (own := rules.WhichOneof("type")):
                yield from _of_message(value, own, getattr(rules, own), path)
            if not (rules and rules.message.skip):
                yield from self._message(value, path)
        elif rules and (own := rules.WhichOneof("type")):
            yield from _scalar(value, own, getattr(rules, own), path, field)


def message_of(resource: Resource) -> Message:
    """Return a resource's message."""
    name = resource.type_url.rpartition("/")[2]
    kind: type[Message] = symbol_database.Default().GetSymbol(name)
    return kind.FromString(resource.body)


@functools.cache
def _fields(descriptor: Descriptor) -> tuple[tuple[FieldDescriptor, _Rules], ...]:
    """Fields that have rules, or messages inside."""
    found = ((field, _rules_of(field)) for field in descriptor.fields)
    return tuple((one, rules) for one, rules in found if rules or one.message_type)


def _rules_of(field: FieldDescriptor) -> _Rules:
    options = cast("Any", field.GetOptions())
    rules = validate_pb2.rules
    return options.Extensions[rules] if options.HasExtension(rules) else None


@functools.cache
def _is_free(descriptor: Descriptor) -> bool:
    options = cast("Any", descriptor.GetOptions())
    return options.Extensions[validate_pb2.disabled] or options.Extensions[validate_pb2.ignored]


@functools.cache
def _required_choices(descriptor: Descriptor) -> tuple[str, ...]:
    return tuple(
        one.name
        for one in descriptor.oneofs
        if cast("Any", one.GetOptions()).Extensions[validate_pb2.required]
    )


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return bool(kind and kind.GetOptions().map_entry)


def _is_required(rules: _Rules) -> bool:
    own = rules.WhichOneof("type")
    return rules.message.required or bool(own and getattr(getattr(rules, own), "required", False))


def _count(count: int, rules: _Rules, least: str, most: str, path: str) -> _Broken:
    if rules.HasField(least) and count < getattr(rules, least):
        yield f"{path}: has {count}, fewer than {getattr(rules, least)}"
    if rules.HasField(most) and count > getattr(rules, most):
        yield f"{path}: has {count}, more than {getattr(rules, most)}"


def _of_message(value: Message, name: str, rules: _Rules, path: str) -> _Broken:
    if value.DESCRIPTOR.full_name in _WRAPPERS:
        yield from _scalar(cast("Any", value).value, name, rules, path)
    elif isinstance(value, duration_pb2.Duration | timestamp_pb2.Timestamp):
        if not rules.HasField("const") or value == rules.const:
            yield from _bounds(_moment(value), rules, path, _moment)
        else:
            yield f"{path}: is not {rules.const}"
    elif isinstance(value, any_pb2.Any):
        yield from _listed(value.type_url, rules, path)


def _moment(value: Any) -> tuple[int, int]:
    return value.seconds, value.nanos


def _scalar(
    value: Any, name: str, rules: _Rules, path: str, field: FieldDescriptor | None = None
) -> _Broken:
    if getattr(rules, "ignore_empty", False) and not value:
        return
    if rules.HasField("const") and value != rules.const:
        yield f"{path}: is {value!r}, not {rules.const!r}"
    match name:
        case "bool":
            return
        case "enum":
            numbers = field.enum_type.values_by_number if field and field.enum_type else {}
            if rules.defined_only and value not in numbers:
                yield f"{path}: {value} is no value of the enumeration"
        case "string" | "bytes":
            yield from _text(value, rules, path)
        case _:
            yield from _bounds(value, rules, path, lambda one: one)
    yield from _listed(value, rules, path)


def _listed(value: Any, rules: _Rules, path: str) -> _Broken:
    among, others = getattr(rules, "in"), rules.not_in
    if among and value not in among:
        yield f"{path}: {value!r} is none of {list(among)}"
    if value in others:
        yield f"{path}: {value!r} is one of {list(others)}"


def _bounds(value: Any, rules: _Rules, path: str, as_number: Callable[[Any], Any]) -> _Broken:
    limits = {
        name: as_number(getattr(rules, name))
        for name in ("lt", "lte", "gt", "gte")
        if rules.HasField(name)
    }
    above = [name for name in ("lt", "lte") if name in limits]
    below = [name for name in ("gt", "gte") if name in limits]
    fits: dict[str, Callable[[Any], bool]] = {
        "lt": lambda limit: value < limit,
        "lte": lambda limit: value <= limit,
        "gt": lambda limit: value > limit,
        "gte": lambda limit: value >= limit,
    }
    kept = {name: fits[name](limit) for name, limit in limits.items()}
    # Where the lower limit is above the upper one, what is between them is excluded.
    is_outside = bool(above and below) and limits[above[0]] < limits[below[0]]
    held = any(kept.values()) if is_outside else all(kept.values())
    if kept and not held:
        yield f"{path}: {value} is not within {limits}"


def _text(value: Any, rules: _Rules, path: str) -> _Broken:
    is_text = isinstance(value, str)
    length, size = len(value), len(value.encode("utf-8", "replace") if is_text else value)
    sizes = {"min_len": length, "max_len": length, "len": length}
    sizes |= {"min_bytes": size, "max_bytes": size, "len_bytes": size}
    for name, own in sizes.items():
        if name not in rules.DESCRIPTOR.fields_by_name or not rules.HasField(name):
            continue
        limit = getattr(rules, name)
        if not (own >= limit if "min" in name else own <= limit if "max" in name else own == limit):
            yield f"{path}: {value[:80]!r} is {own} long, and {name} is {limit}"
    if rules.HasField("pattern"):
        pattern = rules.pattern if is_text else rules.pattern.encode()
        if not re.search(pattern, value):
            yield f"{path}: {value[:80]!r} does not match {rules.pattern}"
    fits: dict[str, Callable[[Any], bool]] = {
        "prefix": value.startswith,
        "suffix": value.endswith,
        "contains": lambda part: part in value,
        "not_contains": lambda part: part not in value,
    }
    for name, fit in fits.items():
        known = name in rules.DESCRIPTOR.fields_by_name and rules.HasField(name)
        if known and not fit(getattr(rules, name)):
            yield f"{path}: {value[:80]!r} breaks {name} {getattr(rules, name)!r}"
    if is_text and rules.WhichOneof("well_known"):
        yield from _known_form(value, rules, path)


def _known_form(value: str, rules: _Rules, path: str) -> _Broken:
    form = rules.WhichOneof("well_known")
    if form != "well_known_regex":
        # None of the messages that meshd prints has another one.
        yield f"{path}: nobody checks the form {form} yet: {value[:80]!r}"
        return
    pattern = _HEADER.get((rules.well_known_regex, rules.strict))
    if pattern and not pattern.match(value):
        yield f"{path}: {value[:80]!r} is no header's name or value"
