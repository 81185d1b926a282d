"""Typed objects → the JSON values that people and files see, and back. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.errors import InvalidInputError
from meshd.model import kinds
from meshd.model.base import Object, decode_scalar, encode_scalar


def api_version(kind: type[Object]) -> str:
    """The newest version of a kind: what is stored is shown as that."""
    return "/".join(part for part in (kind.GROUP, kind.VERSIONS[-1]) if part)


def to_json(found: Object) -> dict[str, Any]:
    """As ``meshctl get -o json`` shows it; what is at its default is left out."""
    # By way of JSON, so that lists are lists and keys are texts to whoever reads them.
    value = msgspec.json.decode(msgspec.json.encode(found, enc_hook=encode_scalar))
    metadata = value.pop("metadata", {})
    head = {"apiVersion": api_version(type(found)), "kind": found.KIND, "metadata": metadata}
    return head | value


def from_json(value: Any) -> Object:
    """The reverse. Raises InvalidInputError when it is nothing that ``to_json`` has made."""
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
