"""An agent's streams with its server, handed on for the mesh role: the node's key stays here.

The mesh role connects to a unix socket; its bytes go to the server over TLS with the node's own
certificate, and back, unread. It gets these two streams and nothing else that the key allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final, TypeAlias

import grpc
import grpc.aio

from meshd.base import tasks
from meshd.base.errors import InvalidInputError, MeshdError, SystemRefusedError, UnreachableError
from meshd.fleet.agent import remote
from meshd.fleet.joining.node import Credentials, NodeFile
from meshd.wire import channel

_METHODS: Final = {
    "envoy.service.discovery.v3.AggregatedDiscoveryService": "DeltaAggregatedResources",
    "meshd.v1.Nodes": "Register",
}
_UNUSABLE: Final = grpc.StatusCode.FAILED_PRECONDITION
"""Of an answer that does not come from the server: why it was not even asked."""
_OPTIONS: Final = (("grpc.max_receive_message_length", -1),)
_OF_ITS_OWN: Final = ("grpc.use_local_subchannel_pool", 1)
"""Otherwise a channel shares the pauses between attempts with earlier ones that Python has not
collected yet: while the identity role is away they grow up to two minutes."""
_HUNG_UP: Final = (grpc.aio.BaseError, grpc.RpcError, asyncio.InvalidStateError)
_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
_STOP_TIMEOUT: Final = 1.0
"""Seconds for streams to end."""


def open_channel(path: Path) -> grpc.aio.Channel:
    """Open the mesh role's end; the caller closes it."""
    return grpc.aio.insecure_channel(f"unix:{path}", (*_OPTIONS, _OF_ITS_OWN))


async def explain(error: grpc.aio.AioRpcError, path: Path, server: str, now: float) -> MeshdError:
    """Convert gRPC's error at the mesh role's end into a message for users."""
    details = error.details() or ""
    if error.code() is _UNUSABLE:
        return InvalidInputError(details)
    if str(path) in details:
        return UnreachableError(f"server {server} cannot be asked: the identity role is away")
    return await remote.diagnose(error, server, now)


class Uplink:
    """Hands streams on. ``server`` as in the settings; each stream has the newest credentials of
    the file."""

    def __init__(
        self,
        server: str,
        file: NodeFile,
        metadata: remote.Metadata = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._file = file
        self._metadata = metadata
        self._clock = clock
        self._channels: dict[Credentials, tuple[grpc.aio.Channel, int]] = {}
        """With the number of streams in each."""
        self._listening: grpc.aio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen. The socket is for its owner and its group, which is that of the directory.

        Raises InvalidInputError or SystemRefusedError when that cannot be.
        """
        channel.check_length(path)
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(service, {name: self._handler(service, name)})
                for service, name in _METHODS.items()
            )
        )
        try:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            channel.share_with_group(path)
        except (RuntimeError, OSError) as error:
            raise SystemRefusedError(f"{path}: cannot listen: {error}") from None
        self._listening = server

    async def stop(self) -> None:
        if self._listening:
            await self._listening.stop(grace=None)
            await self._listening.wait_for_termination(_STOP_TIMEOUT)

    def _handler(self, service: str, name: str) -> _Handler:
        async def handle(_: object, context: _Context) -> None:
            try:
                with self._channel() as upstream:
                    await _hand_on(
                        upstream.stream_stream(f"/{service}/{name}")(metadata=self._metadata),
                        context,
                    )
            except MeshdError as error:
                await context.abort(_UNUSABLE, str(error))
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")

        return grpc.stream_stream_rpc_method_handler(handle)

    @contextlib.contextmanager
    def _channel(self) -> Generator[grpc.aio.Channel]:
        """Share a channel among streams that begin with the same credentials. Raises MeshdError."""
        credentials = self._file.load()
        remote.check_usable(credentials, self._server, self._clock())
        found, streams = self._channels.get(credentials) or (
            remote.open_channel(self._server, credentials),
            0,
        )
        self._channels[credentials] = found, streams + 1
        try:
            yield found
        finally:
            found, streams = self._channels[credentials]
            self._channels[credentials] = found, streams - 1
            if streams == 1:
                del self._channels[credentials]
                tasks.start(found.close(), "closing a connection to the server")


async def _hand_on(call: _Call, context: _Context) -> None:
    """Hand on until either side ends. Raises AioRpcError if the server ends it."""
    up = tasks.start(_up(call, context), "handing on to the server")
    try:
        await call.wait_for_connection()
        await call.initial_metadata()
        if call.done():
            raise await _ended(call)
        # That the server has let the node in: whoever waits for it sees it by this.
        await context.send_initial_metadata(())
        async for message in call:
            await context.write(message)
    finally:
        up.cancel()
        await asyncio.gather(up, return_exceptions=True)
        call.cancel()
    raise await _ended(call)


async def _ended(call: _Call) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(),
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        await call.details(),
    )


async def _up(call: _Call, context: _Context) -> None:
    try:
        while (message := await context.read()) is not grpc.aio.EOF:
            await call.write(message)
        await call.done_writing()
    except _HUNG_UP:
        pass  # whoever reads from it sees that, too
    except BaseException:
        call.cancel()
        raise
