"""Converts the messages of delta ADS to what we read and write of them: the server's side."""

from __future__ import annotations

from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from meshd.xds.subscription import Request, Response


def decode(message: Any) -> Request:
    """Decode a request; the reason of a refusal becomes one line."""
    error = message.error_detail.message if message.HasField("error_detail") else None
    return Request(
        message.type_url,
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        dict(message.initial_resource_versions),
        message.response_nonce,
        None if error is None else " ".join(error.split()),
    )


def encode(response: Response) -> Any:
    return discovery_pb2.DeltaDiscoveryResponse(
        type_url=response.type_url,
        nonce=response.nonce,
        removed_resources=response.removed,
        resources=[
            discovery_pb2.Resource(
                name=resource.name,
                version=resource.version,
                resource={"type_url": resource.type_url, "value": resource.body},
            )
            for resource in response.resources
        ],
    )
