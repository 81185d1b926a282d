"""Prints the runtime layer, by which limits change without a listener that changes:
https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/listeners/runtime.
"""

from __future__ import annotations

from collections.abc import Mapping

from envoy.service.runtime.v3 import rtds_pb2
from google.protobuf import struct_pb2

from meshd.model.pool import LIMITS


def limits(by_listener: Mapping[str, int]) -> rtds_pb2.Runtime:
    """Return the layer; ``by_listener``: how many connections each accepts at a time."""
    fields = {
        f"envoy.resource_limits.listener.{name}.connection_limit": struct_pb2.Value(
            number_value=limit
        )
        for name, limit in by_listener.items()
    }
    return rtds_pb2.Runtime(name=LIMITS, layer=struct_pb2.Struct(fields=fields))
