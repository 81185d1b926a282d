"""A node's permanent connection to its server: delta ADS down, its workloads up.

It owns the connection and nothing else: what was received is in the ``Inbox``, which goes on
without it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import grpc
import grpc.aio
import msgspec

from meshd.base.backoff import Backoff, spread
from meshd.base.errors import UNDECODABLE, InvalidInputError, MeshdError
from meshd.base.tasks import first_of
from meshd.base.threads import in_thread
from meshd.fleet.agent.inbox import Held, Inbox
from meshd.fleet.joining.facts import MeshFacts
from meshd.fleet.server.holders import METADATA
from meshd.fleet.server.in_force import IN_FORCE, NOTHING_YET
from meshd.fleet.server.plane import NODES
from meshd.fleet.server.taken import Taken
from meshd.model.workload import Workload, shown
from meshd.xds.protocol import DeltaRequest, DeltaResponse

_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
_REGISTER: Final = f"/{NODES}/Register"
_BACKOFF: Final = Backoff(0.2, 3.0)
"""Between attempts. A server that comes back waits longer for its nodes."""
_INVALID_ARGUMENT: Final = 3  # google.rpc.Code
_LONGEST_REASON: Final = 4000
_ENDED: Final = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError)
"""What gRPC raises, beside its usual errors, when the other end is done while we write or read."""

_Call: TypeAlias = "grpc.aio.StreamStreamCall[DeltaRequest, DeltaResponse]"

_log = logging.getLogger(__name__)
_taken: Final[msgspec.json.Decoder[Taken]] = msgspec.json.Decoder(Taken)


@dataclasses.dataclass(frozen=True, slots=True)
class Use:
    """What the inbox had at some moment."""

    changes: int
    """How often responses had changed it."""
    stream: int
    """The number of the stream that was open."""
    nonce: str
    """The nonce of the newest response of that stream; empty: there was none."""


class Client:
    """A connection that is kept for ever.

    ``connect`` opens a channel and raises MeshdError; ``explain`` makes gRPC's errors ours.
    ``instance``: which running machine this is, unless others add it. ``taken`` is called when the
    inbox has changed, and makes somebody call ``used``; ``changed`` when the connection has,
    ``heard`` when the server knows what runs here.
    """

    def __init__(
        self,
        node: str,
        types: Sequence[str],
        inbox: Inbox,
        *,
        connect: Callable[[], grpc.aio.Channel],
        explain: Callable[[grpc.aio.AioRpcError], Awaitable[MeshdError]],
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
        self._kept = ""
        """The nonce of the stream's newest response that the inbox has."""
        self._is_used = True
        """All that the inbox has is used."""
        self._changes = 0
        """How often a response has changed what the inbox has."""
        self._streams = 0
        self._in_force = ""
        """The nonce of the newest response that is used, as the server is to know."""
        self._uses = asyncio.Event()
        self._writing = asyncio.Lock()
        self._was_connected = False
        self.connected = False
        self.since = 0.0
        """Unix seconds of the last change of ``connected``; 0: it was never connected."""
        self.problem = ""
        self._since_boot: float | None = None
        self.facts: MeshFacts | None = None
        """The server's settings that are to be this node's, too; None: it has not said them."""
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

    def using(self) -> Use:
        """Return what the inbox has now, for ``used`` once that is in force."""
        return Use(self._changes, self._streams, self._kept)

    def used(self, use: Use | None = None) -> None:
        """Tell the server what of the inbox is in force from now on; None: all that it has."""
        if use is None or use.changes == self._changes:
            self._is_used, self._in_force = True, self._kept
        elif use.stream == self._streams and use.nonce:
            self._in_force = use.nonce
        self._uses.set()

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        failures = 0
        while True:
            failures += 1
            try:
                await self._connection()
            except MeshdError as error:
                self._lost(str(error))
            except grpc.aio.AioRpcError as error:
                self._lost(str(await self._explain(error)))
            except _ENDED as error:
                self._lost(f"the server ended the connection: {error}")
            if self._was_connected:
                failures = 1
            await asyncio.sleep(spread(_BACKOFF.pause(failures)))

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
        try:
            await first_of(self._subscribe(channel), self._register(channel))
        finally:
            await channel.close()

    # ---- up

    async def _register(self, channel: grpc.aio.Channel) -> None:
        call: grpc.aio.StreamStreamCall[bytes, bytes]
        call = channel.stream_stream(_REGISTER)(metadata=self._metadata)
        await _connected(call)
        self._news.set()
        while True:
            await self._news.wait()
            self._news.clear()
            if self._workloads is not None:
                await call.write(msgspec.json.encode(self._workloads))
                if not isinstance(answer := await call.read(), bytes):  # it is grpc.aio.EOF
                    raise await _failure(call)
                taken = _decoded(answer)
                self._since_boot = taken.now - time.clock_gettime(time.CLOCK_BOOTTIME)
                self.facts = taken.facts
                self._note(taken.refused)
                self._heard()

    def _note(self, refused: Mapping[str, str]) -> None:
        if refused == self.kept_out:
            return
        for uid in refused.keys() - self.kept_out.keys():
            _log.error(
                "the server does not take workload %s: %s",
                *(shown(uid), refused[uid]),
                extra={"MESHD_EVENT": "kept-out", "MESHD_WORKLOAD": uid},
            )
        self.kept_out = refused
        self._changed()

    # ---- down

    async def _subscribe(self, channel: grpc.aio.Channel) -> None:
        call = channel.stream_stream(
            _METHOD,
            request_serializer=DeltaRequest.SerializeToString,
            response_deserializer=DeltaResponse.FromString,
        )(metadata=self._metadata)
        await _connected(call)
        self._found()
        self._streams += 1
        self._kept, self._in_force = "", "" if self._is_used else NOTHING_YET
        await call.write(self._use())
        for url in self._types:
            await call.write(self._first_request(url))
        await first_of(self._follow(call), self._tell_uses(call))

    async def _follow(self, call: _Call) -> None:
        async for response in call:
            await self._write(call, await self._take(response))
        raise await _failure(call)

    async def _tell_uses(self, call: _Call) -> None:
        while True:
            await self._uses.wait()
            self._uses.clear()
            try:
                await self._write(call, self._use())
            except _ENDED:
                raise await _failure(call) from None

    async def _write(self, call: _Call, request: DeltaRequest) -> None:
        async with self._writing:  # gRPC takes one at a time
            await call.write(request)

    def _use(self) -> DeltaRequest:
        return DeltaRequest(
            node={"id": self._node}, type_url=IN_FORCE, response_nonce=self._in_force
        )

    def _first_request(self, url: str) -> DeltaRequest:
        return DeltaRequest(
            node={"id": self._node},
            type_url=url,
            resource_names_subscribe=["*"],
            initial_resource_versions=self._inbox.versions(url),
        )

    async def _take(self, response: DeltaResponse) -> DeltaRequest:
        url = response.type_url
        resources = [
            (one.name, Held(one.version, one.resource.value)) for one in response.resources
        ]
        begun = self._inbox.begin(url, resources)
        # Hundreds of objects would keep the event loop busy for too long.
        decode = functools.partial(self._inbox.decoded, url, resources)
        decoding = in_thread("decoding what the server tells", decode)
        try:
            decoded = await asyncio.shield(decoding)
        except asyncio.CancelledError:  # the stream has ended, and the thread goes on
            decoding.add_done_callback(lambda _: self._inbox.drop(begun))
            raise
        changed, refused = self._inbox.keep(url, decoded, response.removed_resources)
        self._kept = response.nonce
        if changed or refused:
            self._is_used = False
            self._changes += 1
            self._taken()
        elif self._is_used:
            self.used()
        answer = DeltaRequest(type_url=response.type_url, response_nonce=response.nonce)
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


async def _connected(call: grpc.aio.Call) -> None:
    """Wait until the server accepts this stream. Raises AioRpcError."""
    await call.initial_metadata()
    if call.done():
        raise await _failure(call)


async def _failure(call: grpc.aio.Call) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), await call.details()
    )
