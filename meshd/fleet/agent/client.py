"""A node's permanent connection to its server: delta ADS down, its workloads up.

It owns the connection and nothing else: what was received is in the ``Inbox``, which goes on
without it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import grpc
import grpc.aio
import msgspec
from envoy.service.discovery.v3 import discovery_pb2

from meshd.base.errors import UNDECODABLE, InvalidInputError, MeshdError
from meshd.fleet.agent.inbox import Held, Inbox
from meshd.fleet.server.holders import METADATA
from meshd.fleet.server.plane import NODES, Taken
from meshd.model.workload import Workload

_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_REGISTER: Final = f"/{NODES}/Register"
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 3.0
"""Seconds between attempts. A server that comes back waits longer for its nodes."""
_INVALID_ARGUMENT: Final = 3  # google.rpc.Code
_LONGEST_REASON: Final = 4000
_ENDED: Final = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError)
"""What gRPC raises, beside its usual errors, when the other end is done while we write or read."""

_log = logging.getLogger(__name__)
_taken: Final[msgspec.json.Decoder[Taken]] = msgspec.json.Decoder(Taken)


class Client:
    """A connection that is kept for ever.

    ``connect`` opens a channel and raises MeshdError; ``explain`` makes gRPC's errors ours.
    ``instance``: which running machine this is, unless others add it. ``taken`` is called when the
    inbox has changed, ``changed`` when the connection has, ``heard`` when the server knows what
    runs here.
    """

    def __init__(
        self,
        node: str,
        types: Sequence[str],
        inbox: Inbox,
        *,
        connect: Callable[[], Any],
        explain: Callable[[Any], Awaitable[MeshdError]],
        taken: Callable[[], None],
        changed: Callable[[], None],
        heard: Callable[[], None],
        instance: str = "",
    ) -> None:
        self._node = node
        self._metadata = ((METADATA, instance),) if instance else ()
        self._types = types
        self._inbox = inbox
        self._connect = connect
        self._explain = explain
        self._taken = taken
        self._changed = changed
        self._heard = heard
        self._workloads: tuple[Workload, ...] | None = None
        self._news = asyncio.Event()
        self._was_connected = False
        self.connected = False
        self.since = 0.0
        """Unix seconds of the last change of ``connected``; 0: it was never connected."""
        self.problem = ""
        self._since_boot: float | None = None
        self.kept_out: Mapping[str, str] = {}
        """Workloads that the server does not take: why, by uid."""

    @property
    def server_time(self) -> float | None:
        """Return the present time of the server's clock, in Unix seconds, whatever this host's
        says."""
        if self._since_boot is None:
            return None
        return self._since_boot + time.clock_gettime(time.CLOCK_BOOTTIME)

    def tell(self, workloads: tuple[Workload, ...]) -> None:
        """Report these as all workloads of this node from now on."""
        if workloads != self._workloads:
            self._workloads = workloads
            self._news.set()

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._connection()
            except MeshdError as error:
                self._lost(str(error))
            except grpc.aio.AioRpcError as error:
                self._lost(str(await self._explain(error)))
            except _ENDED as error:
                self._lost(f"the server ended the connection: {error}")
            if self._was_connected:
                pause = _FIRST_PAUSE
            # Spread, so that the nodes of a server that comes back do not all come at once.
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _lost(self, problem: str) -> None:
        self._was_connected, self.connected = self.connected, False
        if self._was_connected:
            self.since = time.time()
        if problem != self.problem:
            _log.warning("%s", problem, extra={"MESHD_EVENT": "server-lost"})
        self.problem = problem
        self._changed()

    def _found(self) -> None:
        self.connected, self.since, self.problem = True, time.time(), ""
        _log.info("connected to the server", extra={"MESHD_EVENT": "server"})
        self._changed()

    async def _connection(self) -> None:
        """Serve one connection until it breaks, which is an error."""
        channel = self._connect()
        # No TaskGroup: it forgets that it was cancelled when a task of it fails at that moment.
        tasks = [
            asyncio.create_task(self._subscribe(channel)),
            asyncio.create_task(self._register(channel)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await channel.close()
        for task in done:
            task.result()

    # ---- up

    async def _register(self, channel: Any) -> None:
        call = channel.stream_stream(_REGISTER)(metadata=self._metadata)
        await _connected(call)
        self._news.set()
        while True:
            await self._news.wait()
            self._news.clear()
            if self._workloads is not None:
                await call.write(msgspec.json.encode(self._workloads))
                if (answer := await call.read()) is grpc.aio.EOF:
                    raise await _failure(call)
                taken = _decoded(answer)
                self._since_boot = taken.now - time.clock_gettime(time.CLOCK_BOOTTIME)
                self._note(taken.refused)
                self._heard()

    def _note(self, refused: Mapping[str, str]) -> None:
        if refused == self.kept_out:
            return
        for uid in refused.keys() - self.kept_out.keys():
            _log.error(
                "the server does not take workload %s: %s",
                *(uid, refused[uid]),
                extra={"MESHD_EVENT": "kept-out", "MESHD_WORKLOAD": uid},
            )
        self.kept_out = refused
        self._changed()

    # ---- down

    async def _subscribe(self, channel: Any) -> None:
        call = channel.stream_stream(
            _METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )(metadata=self._metadata)
        await _connected(call)
        self._found()
        for url in self._types:
            await call.write(self._first_request(url))
        while (response := await call.read()) is not grpc.aio.EOF:
            await call.write(self._take(response))
        raise await _failure(call)

    def _first_request(self, url: str) -> Any:
        return discovery_pb2.DeltaDiscoveryRequest(
            node={"id": self._node},
            type_url=url,
            resource_names_subscribe=["*"],
            initial_resource_versions=self._inbox.versions(url),
        )

    def _take(self, response: Any) -> Any:
        resources = (
            (one.name, Held(one.version, one.resource.value)) for one in response.resources
        )
        changed, refused = self._inbox.take(
            response.type_url, resources, response.removed_resources
        )
        if changed or refused:
            self._taken()
        answer = discovery_pb2.DeltaDiscoveryRequest(
            type_url=response.type_url, response_nonce=response.nonce
        )
        if refused:
            _log.warning("refused: %s", refused, extra={"MESHD_EVENT": "refused"})
            answer.error_detail.code = _INVALID_ARGUMENT
            answer.error_detail.message = refused[:_LONGEST_REASON]
            self._changed()
        return answer


def _decoded(answer: bytes) -> Taken:
    """Raises InvalidInputError."""
    try:
        taken = _taken.decode(answer)
    except UNDECODABLE as error:
        raise InvalidInputError(f"the server's answer cannot be read: {error}") from None
    if not math.isfinite(taken.now):
        raise InvalidInputError("the server's answer cannot be read: its clock says no time")
    return taken


async def _connected(call: Any) -> None:
    """Wait until the server accepts this stream. Raises AioRpcError."""
    await call.initial_metadata()
    if call.done():
        raise await _failure(call)


async def _failure(call: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), await call.details()
    )
