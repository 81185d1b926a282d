"""Fields of a manifest that the testbed ignores: one line for each kind of field. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from meshd.api.base import ObjectMeta
from meshd.api.decode import Path
from meshd.api.kubernetes.types import DaemonSet, Deployment, Pod, Service, StatefulSet
from meshd.api.read import Read
from meshd.api.yaml import show_path
from meshd.base.json_values import Json, JsonObject, list_in, mapping_in

_KINDS = (Pod, Deployment, StatefulSet, DaemonSet, Service)


def ignored_fields(reads: Iterable[Read]) -> tuple[str, ...]:
    """Return a line for each ignored field, naming the first place where it is written."""
    seen: dict[str, str] = {}
    for read in reads:
        if not isinstance(read.object, _KINDS):
            continue
        for path in _passed_over(type(read.object), _value_at(read.document.value, read.at), ()):
            if path[0] in {"apiVersion", "kind", "status"}:
                continue
            field = ".".join(part for part in path if isinstance(part, str))
            line = str(read.finding(path, f"{show_path(path[-1:])} is ignored in the testbed"))
            seen.setdefault(field.removeprefix("spec.template."), line)
    return tuple(seen.values())


def _value_at(value: Json, path: Path) -> Json:
    for part in path:
        value = mapping_in(value)[part] if isinstance(part, str) else list_in(value)[part]
    return value


def _passed_over(expected: type[object], value: Json, path: Path) -> Iterator[Path]:
    """Yield the places where ``value`` has keys that the type ``expected`` does not know."""
    info = msgspec.inspect.type_info(expected)
    return _walk(info, value, path)


def _walk(info: msgspec.inspect.Type, value: Json, path: Path) -> Iterator[Path]:
    options = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    for option in options:
        if isinstance(option, msgspec.inspect.StructType) and isinstance(value, dict):
            yield from _walk_struct(option, value, path)
        elif isinstance(option, msgspec.inspect.VarTupleType) and isinstance(value, list):
            for index, item in enumerate(value):
                yield from _walk(option.item_type, item, (*path, index))


def _walk_struct(info: msgspec.inspect.StructType, value: JsonObject, path: Path) -> Iterator[Path]:
    if info.cls is ObjectMeta:
        return
    fields = {field.encode_name: field.type for field in info.fields}
    for key, part in value.items():
        if key in fields:
            yield from _walk(fields[key], part, (*path, key))
        else:
            yield (*path, key)
