"""Makes, of a damaged record of a workload, one that keeps its traffic captured. Pure.

The workload is not served: the damage may be in what says which policies apply to it.
"""

from __future__ import annotations

import contextlib

import msgspec

from meshd.api import checked
from meshd.base.errors import UNDECODABLE, InvalidInputError
from meshd.base.json_values import Json, JsonObject, list_in, mapping_in, value_at
from meshd.model.workload import HostService, Workload


def of(uid: str, raw: msgspec.Raw | None = None) -> Workload | None:
    """Return the remains of a record, ``raw``; None if the uid is invalid."""
    fields = _fields(raw)
    known: JsonObject = {"uid": uid, "name": "unknown", "namespace": "unknown", "netns": ""}
    place: JsonObject = {
        **_usable(fields, Workload, "netns"),
        "ports": [{"name": "", "number": one} for one in _numbers(fields.get("ports"))],
    }
    if host := _usable(mapping_in(fields.get("host")), HostService):
        place["host"] = host
    nothing: JsonObject = {}
    for kept in (place, nothing):
        try:
            return checked.convert(known | kept, Workload)
        except InvalidInputError:
            continue
    return None


def _fields(raw: msgspec.Raw | None) -> JsonObject:
    try:
        value: Json = msgspec.json.decode(raw) if raw is not None else None
    except UNDECODABLE:
        return {}
    fields = mapping_in(value)
    return mapping_in(fields.get("workload")) or fields


def _numbers(ports: Json) -> list[int]:
    numbers = (value_at(one, "number") for one in list_in(ports))
    return [one for one in numbers if isinstance(one, int) and 1 <= one <= 65535]


def _usable(value: JsonObject, kind: type[msgspec.Struct], *names: str) -> JsonObject:
    """Return the usable fields, each checked by itself."""
    found: JsonObject = {}
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for name in (names or types.keys()) & value.keys():
        with contextlib.suppress(InvalidInputError):
            checked.convert(value[name], types[name])
            found[name] = value[name]
    return found
