from envoy.config.core.v3 import config_source_pb2 as _config_source_pb2
from envoy.config.core.v3 import extension_pb2 as _extension_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Config(_message.Message):
    __slots__ = ("config_source", "certificate_mapper")
    CONFIG_SOURCE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_MAPPER_FIELD_NUMBER: _ClassVar[int]
    config_source: _config_source_pb2.ConfigSource
    certificate_mapper: _extension_pb2.TypedExtensionConfig
    def __init__(self, config_source: _Optional[_Union[_config_source_pb2.ConfigSource, _Mapping]] = ..., certificate_mapper: _Optional[_Union[_extension_pb2.TypedExtensionConfig, _Mapping]] = ...) -> None: ...
