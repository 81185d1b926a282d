"""Converts typed objects to the JSON values that users and files see, and back. Pure."""

from __future__ import annotations

import msgspec

from meshd.api import kinds
from meshd.api.base import Object, decode_scalar, encode_scalar
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import Json, JsonObject


def api_version(kind: type[Object]) -> str:
    """Return the newest version of a kind: objects are shown in it."""
    return "/".join(part for part in (kind.GROUP, kind.VERSIONS[-1]) if part)


def to_json(found: Object) -> JsonObject:
    """Return an object as ``meshctl get -o json`` shows it; fields at their defaults are left
    out."""
    # By way of JSON, so that lists are lists and keys are texts to whoever reads them.
    value: JsonObject = msgspec.json.decode(msgspec.json.encode(found, enc_hook=encode_scalar))
    metadata = value.pop("metadata", {})
    head: JsonObject = {
        "apiVersion": api_version(type(found)),
        "kind": found.KIND,
        "metadata": metadata,
    }
    return head | value


def from_json(value: Json) -> Object:
    """Return the object of a JSON value. Raises InvalidInputError if ``to_json`` cannot have made
    it."""
    if not isinstance(value, dict):
        raise InvalidInputError("not an object")
    group = str(value.get("apiVersion", "")).rpartition("/")[0]
    kind = kinds.find_kind(group, str(value.get("kind", "")))
    if kind is None:
        raise InvalidInputError(f"unknown kind {value.get('apiVersion')} {value.get('kind')}")
    try:
        return msgspec.convert(value, kind, dec_hook=decode_scalar, str_keys=True)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"{kind.KIND}: {error}") from None
