# pyright: reportAttributeAccessIssue=false
"""Messages of Envoy that ``xds-protos`` does not have yet.

Two choose the client certificate of an upstream connection by the connection's filter state:
https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/certificate_selectors/certificate_selectors.
Built from descriptors with the same package, names and numbers: on the wire they are the same.
"""

from __future__ import annotations

from typing import Any, Final

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE: Final = "envoy.extensions"
_Field = descriptor_pb2.FieldDescriptorProto


def _message(path: str, fields: list[Any], needs: tuple[str, ...] = ()) -> Any:
    package = f"{_PACKAGE}.{path}.v3"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}/config.proto",
        package=package,
        syntax="proto3",
        dependency=needs,
        message_type=[descriptor_pb2.DescriptorProto(name="Config", field=fields)],
    )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Config"))


def _field(name: str, number: int, message: str = "", *, repeated: bool = False) -> Any:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if message:
        return _Field(
            name=name,
            number=number,
            label=label,
            type=_Field.TYPE_MESSAGE,
            type_name=f".{message}",
        )
    return _Field(name=name, number=number, label=label, type=_Field.TYPE_STRING)


OnDemandSecret: Final = _message(
    "transport_sockets.tls.cert_selectors.on_demand_secret",
    [
        _field("config_source", 1, config_source_pb2.ConfigSource.DESCRIPTOR.full_name),
        _field("certificate_mapper", 2, extension_pb2.TypedExtensionConfig.DESCRIPTOR.full_name),
    ],
    (config_source_pb2.DESCRIPTOR.name, extension_pb2.DESCRIPTOR.name),
)
"""Takes the certificate from the secret that the mapper names, fetched when first needed."""

NameFromFilterState: Final = _message(
    "transport_sockets.tls.cert_mappers.filter_state_override", [_field("default_value", 1)]
)
"""The secret's name is the filter state ``names.SECRET_STATE``."""

StateOnAccept: Final = _message(
    "filters.listener.set_filter_state",
    [
        _field(
            "on_new_connection", 1, value_pb2.FilterStateValue.DESCRIPTOR.full_name, repeated=True
        )
    ],
    (value_pb2.DESCRIPTOR.name,),
)
"""A listener filter that sets filter state, whichever filter chain takes the connection."""
