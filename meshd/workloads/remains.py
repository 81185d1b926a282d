"""Makes, of a damaged record of a workload, one that keeps its traffic captured. Pure.

The workload is not served: the damage may be in what says which policies apply to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from meshd.api import checked
from meshd.base.errors import UNDECODABLE, InvalidInputError
from meshd.model.workload import HostService, Workload

_NOTHING: Final[Mapping[str, Any]] = {}


def of(uid: str, raw: msgspec.Raw | None = None) -> Workload | None:
    """Return the remains of a record, ``raw``; None if the uid is invalid."""
    fields = _fields(raw)
    known = {"uid": uid, "name": "unknown", "namespace": "unknown", "netns": ""}
    place = {
        **_usable(fields, Workload, "netns"),
        "ports": [_PORT | {"number": one} for one in _numbers(fields.get("ports"))],
    }
    if host := _usable(_mapping(fields.get("host")), HostService):
        place["host"] = host
    for kept in (place, {}):
        try:
            return checked.convert(known | kept, Workload)
        except InvalidInputError:
            continue
    return None


_PORT: Final = {"name": ""}


def _fields(raw: msgspec.Raw | None) -> Mapping[str, Any]:
    try:
        value: Any = msgspec.json.decode(raw) if raw is not None else None
    except UNDECODABLE:
        return _NOTHING
    fields = _mapping(value)
    return _mapping(fields.get("workload")) or fields


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else _NOTHING


def _numbers(ports: Any) -> list[int]:
    numbers = (_mapping(one).get("number") for one in (ports if isinstance(ports, list) else ()))
    return [one for one in numbers if isinstance(one, int) and 1 <= one <= 65535]


def _usable(value: Mapping[str, Any], kind: type[msgspec.Struct], *names: str) -> dict[str, Any]:
    """Return the usable fields, each checked by itself."""
    found: dict[str, Any] = {}
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for name in (names or types.keys()) & value.keys():
        with contextlib.suppress(InvalidInputError):
            checked.convert(value[name], types[name])
            found[name] = value[name]
    return found
