"""The streams that a proxy opens to get its configuration."""

from __future__ import annotations

from typing import Any, Final

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

_SERVICE: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
DELTA: Final = f"{_SERVICE}/DeltaAggregatedResources"
WHOLE: Final = f"{_SERVICE}/StreamAggregatedResources"


def delta_stream(channel: grpc.aio.Channel, method: str = DELTA) -> Any:
    """A stream on which both sides say only what is new."""
    call: Any = channel.stream_stream(
        method,
        request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
        response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
    )
    return call()


def whole_stream(channel: grpc.aio.Channel, method: str = WHOLE) -> Any:
    """A stream on which both sides say all that there is each time."""
    call: Any = channel.stream_stream(
        method,
        request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
        response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
    )
    return call()
