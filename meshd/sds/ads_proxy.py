"""The proxies' aggregated stream: secrets come from here, all else from the mesh role.

Envoy keeps secrets cheap only on its aggregated stream: otherwise it opens a stream for each, which
takes 19 KB there and more here. So that stream ends where the keys are. ``sds`` answers for the
mesh's own secrets; the rest goes to the mesh role and back, unread. The mesh role sees no key, and
while it is away secrets are served all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2

from meshd.base.tasks import first_of
from meshd.sds.server import TYPE, Handler, Server
from meshd.xds.protocol import DeltaRequest, DeltaResponse

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name: for HTTP/2 to begin, which a busy machine may hold up.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_AGAIN: Final = 0.2
"""Seconds until a mesh role that hung up without an answer is asked again."""
_OF_GATEWAYS: Final = "kubernetes://"
"""How the names of secrets begin that users configure: they are part of the configuration."""
_STOP_TIMEOUT: Final = 1.0
"""Seconds for those who serve proxies to end."""
_OURS: Final = "secrets-"
"""How the nonces begin of what ``sds`` answers."""

_Node = base_pb2.Node
_Write = Callable[[bytes], Awaitable[None]]
_Context: TypeAlias = "grpc.aio.ServicerContext[DeltaRequest, bytes]"
_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"


def parts(
    request: DeltaRequest, node: base_pb2.Node
) -> tuple[DeltaRequest | None, DeltaRequest | None]:
    """Split the request of a proxy, ``node``, into the part for ``sds`` and that for the mesh role.
    Pure."""
    if request.type_url != TYPE:
        rest = DeltaRequest()
        rest.CopyFrom(request)
        rest.node.CopyFrom(node)
        return None, rest
    ours, theirs = (DeltaRequest(type_url=TYPE, node=node) for _ in range(2))
    for name in request.resource_names_subscribe:
        _whose(name, ours, theirs).resource_names_subscribe.append(name)
    for name in request.resource_names_unsubscribe:
        _whose(name, ours, theirs).resource_names_unsubscribe.append(name)
    for name, version in request.initial_resource_versions.items():
        _whose(name, ours, theirs).initial_resource_versions[name] = version
    if nonce := request.response_nonce:
        answered = ours if nonce.startswith(_OURS) else theirs
        answered.response_nonce = nonce.removeprefix(_OURS)
        if request.HasField("error_detail"):
            answered.error_detail.CopyFrom(request.error_detail)
    return (ours if _says_something(ours) else None), (theirs if _says_something(theirs) else None)


def _whose(name: str, ours: DeltaRequest, theirs: DeltaRequest) -> DeltaRequest:
    return theirs if name.startswith(_OF_GATEWAYS) else ours


def _says_something(request: DeltaRequest) -> bool:
    return bool(
        request.resource_names_subscribe
        or request.resource_names_unsubscribe
        or request.initial_resource_versions
        or request.response_nonce
    )


class AdsProxy:
    """The end of the aggregated streams; ``plane`` is the socket of the mesh role."""

    def __init__(self, secrets: Server, plane: Path) -> None:
        self._secrets = secrets
        self._plane = plane
        self._channel: grpc.aio.Channel | None = None
        self._serving: set[asyncio.Task[object]] = set()

    @property
    def handler(self) -> Handler:
        """Return the handler of the service's incremental variant, whose answers are bytes
        already."""
        return grpc.stream_stream_rpc_method_handler(self._serve, DeltaRequest.FromString)

    async def close(self) -> None:
        """Cut off what is left once the server was stopped; gRPC would complain of it."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=_STOP_TIMEOUT)
        if self._channel:
            await self._channel.close()

    async def _serve(self, _: object, context: _Context) -> None:
        if task := asyncio.current_task():
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        turn = asyncio.Lock()

        async def write(message: bytes) -> None:
            async with turn:
                await context.write(message)

        ours, link = _Ours(write), _Link(self._call, write)
        # That is how gRPC says that the client hung up, or that we do.
        with contextlib.suppress(
            asyncio.CancelledError, grpc.aio.BaseError, asyncio.InvalidStateError
        ):
            await first_of(self._secrets.serve_delta(ours), link.run(), _sort(context, ours, link))

    def _call(self) -> _Call:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"unix:{self._plane}", _OPTIONS)
        return self._channel.stream_stream(METHOD)(wait_for_ready=True)


async def _sort(context: _Context, ours: _Ours, link: _Link) -> None:
    """Sort a proxy's requests until it hangs up."""
    node = None
    while (request := await context.read()) is not grpc.aio.EOF:
        # Who it is and of which pool, which only its first request says.
        node = node or _Node(id=request.node.id, cluster=request.node.cluster)
        for_us, for_them = parts(request, node)
        if for_us:
            ours.requests.put_nowait(for_us)
        if for_them:
            link.requests.put_nowait(for_them.SerializeToString())


class _Ours:
    """A client in the form that ``sds`` takes."""

    def __init__(self, write: _Write) -> None:
        self.requests: asyncio.Queue[DeltaRequest] = asyncio.Queue()
        self._write = write

    async def read(self) -> DeltaRequest:
        return await self.requests.get()

    async def write(self, response: DeltaResponse, /) -> None:
        response.nonce = _OURS + response.nonce
        await self._write(response.SerializeToString())


class _Link:
    """One proxy's connection to the mesh role."""

    def __init__(self, call: Callable[[], _Call], write: _Write) -> None:
        self.requests: asyncio.Queue[bytes] = asyncio.Queue()
        self._call = call
        self._write = write
        self._said: list[bytes] = []
        """All that was said to a mesh role that has answered nothing yet."""
        self._answered = False

    async def run(self) -> None:
        """Hand on until the mesh role hangs up.

        If it never answered, a new connection gets the same requests; otherwise the proxy has to
        come back, since only it knows what it has by now.
        """
        while True:
            call = self._call()
            try:
                await first_of(self._receive(call), self._send(call))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # it is gone, which either of them may see first
            finally:
                call.cancel()
            if self._answered:
                return
            await asyncio.sleep(_AGAIN)

    async def _receive(self, call: _Call) -> None:
        async for response in call:
            self._answered = True
            self._said.clear()
            await self._write(response)

    async def _send(self, call: _Call) -> None:
        for request in tuple(self._said):
            await call.write(request)
        while True:
            request = await self.requests.get()
            if not self._answered:
                self._said.append(request)
            await call.write(request)
