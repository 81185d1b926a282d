# pyright: reportAttributeAccessIssue=false
"""API objects ↔ MCP over xDS: ``istio.mcp.v1alpha1.Resource`` with the object's spec in it.

After https://github.com/istio/api/tree/master/mcp/v1alpha1, whose two messages are built here from
descriptors with the same names and numbers. A type URL is ``GROUP/VERSION/KIND`` (``core`` for
Kubernetes' own group). The body is a ``google.protobuf.Struct``: the ``spec`` of Istio's kinds, and
all but the metadata of the others, which have other parts.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
)
from google.protobuf.message import DecodeError, EncodeError

from meshd.errors import InvalidInputError
from meshd.xds.resources import Resource

_PACKAGE: Final = "istio.mcp.v1alpha1"
_CORE: Final = "core"
_Field = descriptor_pb2.FieldDescriptorProto
_STRUCT: Final = "type.googleapis.com/google.protobuf.Struct"
RESOURCE: Final = f"type.googleapis.com/{_PACKAGE}.Resource"

_MALFORMED: Final = (DecodeError, json_format.Error, ValueError, RecursionError)
"""What protobuf raises for bytes that are no message, and for values that JSON has not (NaN)."""
_UNSAYABLE: Final = (json_format.Error, EncodeError, ValueError, TypeError, OverflowError)
"""What protobuf raises for values that a message cannot hold."""
_MOST_WHOLE: Final = 2.0**63
"""Above it, a double is no whole number that any field can hold."""

WORKLOAD: Final = "meshd.io/v1/Workload"
"""A workload of some node; the name is ``NODE/UID``."""


def _map(name: str, number: int) -> tuple[Any, Any]:
    """A ``map<string, string>`` field, and the message that protobuf wants for it."""
    entry = descriptor_pb2.DescriptorProto(
        name=f"{name.capitalize()}Entry",
        field=[_scalar("key", 1), _scalar("value", 2)],
        options=descriptor_pb2.MessageOptions(map_entry=True),
    )
    field = _Field(
        name=name,
        number=number,
        label=_Field.LABEL_REPEATED,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.Metadata.{entry.name}",
    )
    return field, entry


def _scalar(name: str, number: int) -> Any:
    return _Field(name=name, number=number, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)


def _message(name: str, number: int, of: str) -> Any:
    return _Field(
        name=name,
        number=number,
        label=_Field.LABEL_OPTIONAL,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{of}",
    )


def _resource_class() -> Any:
    labels, labels_entry = _map("labels", 4)
    annotations, annotations_entry = _map("annotations", 5)
    metadata = descriptor_pb2.DescriptorProto(
        name="Metadata",
        field=[
            _scalar("name", 1),
            _message("create_time", 2, "google.protobuf.Timestamp"),
            _scalar("version", 3),
            labels,
            annotations,
        ],
        nested_type=[labels_entry, annotations_entry],
    )
    resource = descriptor_pb2.DescriptorProto(
        name="Resource",
        field=[
            _message("metadata", 1, f"{_PACKAGE}.Metadata"),
            _message("body", 2, "google.protobuf.Any"),
        ],
    )
    file = descriptor_pb2.FileDescriptorProto(
        name="mcp/v1alpha1/resource.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[any_pb2.DESCRIPTOR.name, timestamp_pb2.DESCRIPTOR.name],
        message_type=[metadata, resource],
    )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Resource"))


_Resource: Final = _resource_class()


def type_url(api_version: str, kind: str) -> str:
    """Of ``networking.istio.io/v1`` and ``VirtualService``, or of ``v1`` and ``Service``."""
    group, slash, version = api_version.rpartition("/")
    return f"{group if slash else _CORE}/{version}/{kind}"


def encode(value: dict[str, Any]) -> Resource:
    """An API object in its JSON form, with ``apiVersion``, ``kind`` and ``metadata``.

    Raises InvalidInputError when no message can hold it.
    """
    metadata = value.get("metadata", {})
    url = type_url(value["apiVersion"], value["kind"])
    rest = {key: part for key, part in value.items() if key not in _HEAD}
    message = _Resource()
    name = "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)
    body = rest if url.startswith(f"{_CORE}/") else rest.get("spec", {})
    try:
        message.metadata.name = name
        if created := metadata.get("creationTimestamp"):
            message.metadata.create_time.FromJsonString(created)
        message.metadata.labels.update(metadata.get("labels", {}))
        message.metadata.annotations.update(metadata.get("annotations", {}))
    except _UNSAYABLE as error:
        raise InvalidInputError(f"{value['kind']} {name}: its metadata: {error}") from None
    return _packed(url, name, message, body)


def encode_body(url: str, name: str, body: dict[str, Any]) -> Resource:
    """What is no API object: ``body`` is all there is to it. Raises InvalidInputError."""
    message = _Resource()
    message.metadata.name = name
    return _packed(url, name, message, body)


_HEAD: Final = frozenset({"apiVersion", "kind", "metadata"})


def _packed(url: str, name: str, message: Any, body: dict[str, Any]) -> Resource:
    try:
        struct = json_format.ParseDict(body, struct_pb2.Struct())
        message.body.type_url = _STRUCT
        message.body.value = struct.SerializeToString(deterministic=True)
        data = message.SerializeToString(deterministic=True)
    except _UNSAYABLE as error:
        raise InvalidInputError(f"{url} {name}: {error}") from None
    return Resource(url, name, hashlib.blake2b(data, digest_size=8).hexdigest(), data)


def decode_body(data: bytes) -> dict[str, Any]:
    """The reverse of ``encode_body``. Raises InvalidInputError."""
    return _parsed(data)[1]


def decode(url: str, data: bytes) -> dict[str, Any]:
    """The reverse of ``encode``. Raises InvalidInputError."""
    message, body = _parsed(data)
    group, version, kind = _split(url)
    namespace, _, name = message.metadata.name.rpartition("/")
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if message.metadata.HasField("create_time"):
        metadata["creationTimestamp"] = _time(message.metadata.create_time)
    for part in ("labels", "annotations"):
        if values := dict(getattr(message.metadata, part)):
            metadata[part] = values
    core = group == _CORE
    head = {"apiVersion": version if core else f"{group}/{version}", "kind": kind}
    return head | {"metadata": metadata} | (body if core else {"spec": body})


def _time(stamp: Any) -> str:
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


def _parsed(data: bytes) -> tuple[Any, dict[str, Any]]:
    try:
        message = _Resource.FromString(data)
        if message.body.type_url != _STRUCT:
            raise InvalidInputError(
                f"its body is a {message.body.type_url or 'nothing'}; only {_STRUCT} is understood"
            )
        struct = struct_pb2.Struct.FromString(message.body.value)
        body = json_format.MessageToDict(struct)
    except _MALFORMED as error:
        raise InvalidInputError(f"not an MCP resource: {error}") from None
    return message, _plain(body)


def _plain(value: Any) -> Any:
    """All numbers of a Struct are doubles: those that are whole become whole numbers again."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _MOST_WHOLE:
        return int(value)
    return value
