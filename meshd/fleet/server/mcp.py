"""API objects ↔ MCP over xDS: ``istio.mcp.v1alpha1.Resource`` with the object's spec in it.

After https://github.com/istio/api/tree/master/mcp/v1alpha1. A type URL is ``GROUP/VERSION/KIND``
(``core`` for Kubernetes' own group). The body is a ``google.protobuf.Struct``: the ``spec`` of
Istio's kinds, and all but the metadata of the others, which have other parts.
"""

from __future__ import annotations

import hashlib
from typing import Final

from google.protobuf import json_format, struct_pb2, timestamp_pb2
from google.protobuf.message import DecodeError, EncodeError

from meshd.api.object_fields import api_version_of, kind_of, name_of, namespace_of
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import Json, JsonObject, mapping_at, mapping_in, text_at, texts_at
from meshd.protos import mcp_resource_pb2
from meshd.xds.resources import Resource

_CORE: Final = "core"
_STRUCT: Final = "type.googleapis.com/google.protobuf.Struct"
RESOURCE: Final = "type.googleapis.com/" + mcp_resource_pb2.Resource.DESCRIPTOR.full_name

_MALFORMED: Final = (DecodeError, json_format.Error, ValueError, RecursionError)
"""What protobuf raises for bytes that are no message, and for values that JSON has not (NaN)."""
_UNSAYABLE: Final = (json_format.Error, EncodeError, ValueError, TypeError, OverflowError)
"""What protobuf raises for values that a message cannot hold."""
_MOST_WHOLE: Final = 2.0**63
"""Above it, a double is no whole number that any field can hold."""

WORKLOAD: Final = "meshd.io/v1/Workload"
"""A workload of some node; the name is ``NODE/UID``."""


def type_url(api_version: str, kind: str) -> str:
    """Return the type URL of ``networking.istio.io/v1`` and ``VirtualService``, or of ``v1`` and
    ``Service``."""
    group, slash, version = api_version.rpartition("/")
    return f"{group if slash else _CORE}/{version}/{kind}"


def url_of(value: JsonObject) -> str:
    """Return the type URL of an API object in its JSON form."""
    return type_url(api_version_of(value), kind_of(value))


def resource_name(value: JsonObject) -> str:
    """Return ``NAMESPACE/NAME`` of an API object in its JSON form; ``NAME`` if it has no
    namespace."""
    return "/".join(part for part in (namespace_of(value), name_of(value)) if part)


def encode(value: JsonObject) -> Resource:
    """Return the resource of an API object in its JSON form, with ``apiVersion``, ``kind`` and
    ``metadata``.

    Raises InvalidInputError if no message can hold it.
    """
    url = url_of(value)
    rest = {key: part for key, part in value.items() if key not in _HEAD}
    message = mcp_resource_pb2.Resource()
    name = resource_name(value)
    body = rest if url.startswith(f"{_CORE}/") else mapping_in(rest.get("spec"))
    try:
        message.metadata.name = name
        if created := text_at(value, "metadata", "creationTimestamp"):
            message.metadata.create_time.FromJsonString(created)
        message.metadata.labels.update(_texts(value, "labels"))
        message.metadata.annotations.update(_texts(value, "annotations"))
    except _UNSAYABLE as error:
        raise InvalidInputError(f"{kind_of(value)} {name}: its metadata: {error}") from None
    return _packed(url, name, message, body)


def encode_body(url: str, name: str, body: JsonObject) -> Resource:
    """Return the resource of a ``body`` that is not an API object. Raises InvalidInputError."""
    message = mcp_resource_pb2.Resource()
    message.metadata.name = name
    return _packed(url, name, message, body)


def _texts(value: JsonObject, part: str) -> dict[str, str]:
    """Return labels or annotations. Raises TypeError if they are not all texts."""
    texts = texts_at(value, "metadata", part)
    if len(texts) < len(mapping_at(value, "metadata", part)):
        raise TypeError(f"{part} are not all texts")
    return texts


_HEAD: Final = frozenset({"apiVersion", "kind", "metadata"})


def _packed(url: str, name: str, message: mcp_resource_pb2.Resource, body: JsonObject) -> Resource:
    try:
        struct = json_format.ParseDict(body, struct_pb2.Struct())
        message.body.type_url = _STRUCT
        message.body.value = struct.SerializeToString(deterministic=True)
        data = message.SerializeToString(deterministic=True)
    except _UNSAYABLE as error:
        raise InvalidInputError(f"{url} {name}: {error}") from None
    return Resource(url, name, hashlib.blake2b(data, digest_size=8).hexdigest(), data)


def decode_body(data: bytes) -> JsonObject:
    """Decode what ``encode_body`` encodes. Raises InvalidInputError."""
    return _parsed(data)[1]


def decode(url: str, data: bytes) -> JsonObject:
    """Decode what ``encode`` encodes. Raises InvalidInputError."""
    message, body = _parsed(data)
    group, version, kind = _split(url)
    namespace, _, name = message.metadata.name.rpartition("/")
    metadata: JsonObject = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if message.metadata.HasField("create_time"):
        metadata["creationTimestamp"] = _time(message.metadata.create_time)
    for part in ("labels", "annotations"):
        if values := dict(getattr(message.metadata, part)):
            metadata[part] = {**values}
    core = group == _CORE
    api_version = version if core else f"{group}/{version}"
    rest: JsonObject = body if core else {"spec": body}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def _time(stamp: timestamp_pb2.Timestamp) -> str:
    try:
        return stamp.ToJsonString()
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"its creation time is none: {error}") from None


def _split(url: str) -> tuple[str, str, str]:
    match url.split("/"):
        case [group, version, kind]:
            return group, version, kind
        case _:
            raise InvalidInputError(f"{url!r} is not of the form GROUP/VERSION/KIND")


def _parsed(data: bytes) -> tuple[mcp_resource_pb2.Resource, JsonObject]:
    try:
        message = mcp_resource_pb2.Resource.FromString(data)
        if message.body.type_url != _STRUCT:
            raise InvalidInputError(
                f"its body is a {message.body.type_url or 'nothing'}; only {_STRUCT} is understood"
            )
        struct = struct_pb2.Struct.FromString(message.body.value)
        body = json_format.MessageToDict(struct)
    except _MALFORMED as error:
        raise InvalidInputError(f"not an MCP resource: {error}") from None
    return message, {key: _plain(part) for key, part in body.items()}


def _plain(value: Json) -> Json:
    """Return a value with whole numbers: all numbers of a Struct are doubles."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _MOST_WHOLE:
        return int(value)
    return value
