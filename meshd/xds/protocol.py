"""Converts the messages of discovery to what we read and write of them: the server's side."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from meshd.base.threads import in_thread
from meshd.xds.bounded import check_fields
from meshd.xds.exchange import Request, Response
from meshd.xds.resources import ROUTES

DeltaRequest: TypeAlias = discovery_pb2.DeltaDiscoveryRequest
DeltaResponse: TypeAlias = discovery_pb2.DeltaDiscoveryResponse
WholeRequest: TypeAlias = discovery_pb2.DiscoveryRequest
WholeResponse: TypeAlias = discovery_pb2.DiscoveryResponse

DeltaContext: TypeAlias = "grpc.aio.ServicerContext[DeltaRequest, DeltaResponse]"
EncodedContext: TypeAlias = "grpc.aio.ServicerContext[DeltaRequest, bytes]"
WholeContext: TypeAlias = "grpc.aio.ServicerContext[WholeRequest, WholeResponse]"

_FEW: Final = 20
"""Resources whose encoding takes no longer than the start of a thread does."""


def delta_handler(
    serve: Callable[[object, DeltaContext], Awaitable[None]],
) -> grpc.RpcMethodHandler[DeltaRequest, DeltaResponse]:
    """Return the gRPC handler of a method of the incremental variant."""
    return grpc.stream_stream_rpc_method_handler(serve, _decoded, DeltaResponse.SerializeToString)


def _decoded(message: bytes) -> DeltaRequest:
    """Raises ValueError for one that is larger than requests are: the stream ends."""
    check_fields(message)
    return DeltaRequest.FromString(message)


def encoded_handler(
    serve: Callable[[object, EncodedContext], Awaitable[None]],
) -> grpc.RpcMethodHandler[DeltaRequest, bytes]:
    """Return the gRPC handler of a method of the incremental variant whose responses are given as
    bytes: see ``encoded``."""
    return grpc.stream_stream_rpc_method_handler(serve, DeltaRequest.FromString)


def whole_handler(
    serve: Callable[[object, WholeContext], Awaitable[None]],
) -> grpc.RpcMethodHandler[WholeRequest, WholeResponse]:
    """Return the gRPC handler of a method of the older variant (state of the world)."""
    return grpc.stream_stream_rpc_method_handler(
        serve, WholeRequest.FromString, WholeResponse.SerializeToString
    )


def decode(message: DeltaRequest) -> Request:
    """Decode a request; the reason of a refusal becomes one line."""
    return Request(
        message.type_url,
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        dict(message.initial_resource_versions),
        message.response_nonce,
        _reason(message),
    )


def decode_whole(message: WholeRequest) -> Request:
    """Decode a request of the older variant, which subscribes to all of its names and no other."""
    return Request(
        message.type_url,
        tuple(message.resource_names),
        nonce=message.response_nonce,
        error=_reason(message),
    )


def _reason(message: DeltaRequest | WholeRequest) -> str | None:
    if not message.HasField("error_detail"):
        return None
    return " ".join(message.error_detail.message.split())


def encode(response: Response) -> DeltaResponse:
    message = DeltaResponse(
        type_url=response.type_url, nonce=response.nonce, removed_resources=response.removed
    )
    for resource in response.resources:
        # In place: a table of a large mesh has megabytes, which a constructor copies several times.
        part = message.resources.add(name=resource.name, version=resource.version)
        part.resource.type_url = resource.type_url
        part.resource.value = resource.body
    return message


def encoded(response: Response) -> bytes:
    """Return the bytes of a response. With a large mesh that takes long: see ``Encoding``."""
    return encode(response).SerializeToString()


class Encoding:
    """A client's context that takes responses, and encodes large ones in threads."""

    def __init__(self, context: EncodedContext) -> None:
        self._context = context

    async def read(self) -> DeltaRequest:
        return await self._context.read()

    async def write(self, response: Response, /) -> None:
        # One route configuration may be of megabytes.
        if response.type_url == ROUTES or len(response.resources) > _FEW:
            work = functools.partial(encoded, response)
            await self._context.write(await in_thread("encoding a response", work))
        else:
            await self._context.write(encoded(response))


def encode_whole(response: Response) -> WholeResponse:
    """Encode a response of the older variant, which lists all that there is."""
    message = WholeResponse(
        type_url=response.type_url, nonce=response.nonce, version_info=response.nonce
    )
    for resource in response.resources:
        message.resources.add(type_url=resource.type_url, value=resource.body)
    return message
