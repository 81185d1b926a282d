"""The control plane for other nodes: configuration over delta ADS, and what runs on each of them.

It owns the gRPC server and the account of connected nodes. The certificate tells which node it is,
and another part decides whether it belongs here; ``xds.unordered`` decides what the node is told,
and its reports go into the rosters.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import grpc
import grpc.aio
import msgspec

from meshd import wire
from meshd.base.attempts import Attempts
from meshd.base.errors import InvalidInputError, MeshdError, NotReadyError, SystemRefusedError
from meshd.base.tasks import first_of
from meshd.fleet.joining.facts import MeshFacts
from meshd.fleet.server import reports, rosters
from meshd.fleet.server.asking import Asking, is_plain
from meshd.fleet.server.caller import Caller
from meshd.fleet.server.callers import instance_of
from meshd.fleet.server.holders import Holders
from meshd.fleet.server.in_force import InForce
from meshd.fleet.server.open_streams import OpenStreams, Stream
from meshd.fleet.server.taken import Taken
from meshd.model.bounds import Bounds
from meshd.model.workload import Workload, shown
from meshd.wire.joining import Peer
from meshd.xds.connection import Connection
from meshd.xds.exchange import Refused
from meshd.xds.protocol import (
    DeltaContext,
    DeltaRequest,
    DeltaResponse,
    decode,
    delta_handler,
    encode,
)
from meshd.xds.resources import EMPTY, Resources, difference
from meshd.xds.unordered import UnorderedStream

_ADS: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
NODES: Final = "meshd.v1.Nodes"
"""Our own service: ``Register`` takes the whole of a node's workloads again at each change, as a
list in JSON, and answers each with ``Taken``."""
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    # An agent has two, and one for each certificate that it asks for; each may hold a message.
    ("grpc.max_concurrent_streams", 64),
    # Two minutes otherwise, in which a client may leave out its HTTP/2 settings.
    ("grpc.server_handshake_timeout_ms", 5_000),
    # A node that vanished without a word is noticed within seconds.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_GREETING: Final = 1.0
"""Seconds for the initial metadata of a stream that is cut to be sent."""
_STOP_TIMEOUT: Final = 1.0

Asked = TypeVar("Asked")
Told = TypeVar("Told")

_log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
class _Node:
    name: str
    stream: UnorderedStream
    private: Resources
    ring: Callable[[], None] = lambda: None
    """Called when there may be something to send."""
    asking: Asking = dataclasses.field(default_factory=Asking)
    in_force: InForce = dataclasses.field(default_factory=InForce)
    noted: rosters.Noted = lambda _: contextlib.nullcontext()

    def following(self) -> DeltaResponse | None:
        if (response := self.stream.next()) is None:
            return None
        self.in_force.sent(response.nonce)
        return encode(response)

    @property
    def synced(self) -> bool:
        """Return whether all that the node asked for is in force there."""
        return self.stream.synced and self.in_force.is_newest

    async def receive(self, message: DeltaRequest) -> None:
        if is_plain(message):
            self._hear(message)
            return
        with self.noted(f"what node {self.name} asks for"):
            self._hear(message)

    def _hear(self, message: DeltaRequest) -> None:
        said = decode(message)
        if self.in_force.hears(said) or (request := self.asking.bounded(said)) is None:
            return
        answered = self.stream.receive(request)
        if isinstance(answered, Refused) and answered.final:
            _log.warning(
                "node %s refused %s: %s",
                *(self.name, ", ".join(answered.names), answered.reason),
                extra={"MESHD_EVENT": "refused", "MESHD_CONFIG": answered.names[0]},
            )


class Plane:
    """The control plane.

    ``peer``: the node at the other end of a gRPC context; ``admit``: the bounds of its workloads'
    identities. Both raise InvalidInputError if it does not belong here. ``changed`` is called when
    the rosters have changed; ``facts``: what nodes are told that their settings are to be.
    """

    def __init__(
        self,
        peer: Callable[[Caller], Peer],
        admit: Callable[[Peer], Awaitable[Bounds]],
        changed: Callable[[], None],
        grace: float,
        clock: Callable[[], float] = time.time,
        *,
        attempts: Attempts | None = None,
        facts: MeshFacts | None = None,
    ) -> None:
        self._attempts = attempts
        self._facts = facts
        self._peer = peer
        self._admit = admit
        self._changed = changed
        self._grace = grace
        self._clock = clock
        self._resources: Resources | None = None
        self._private: Callable[[str], Resources] = lambda _: EMPTY
        self._nodes: set[_Node] = set()
        self.streams = OpenStreams(clock)
        self.holders = Holders(clock)
        self._rosters: rosters.Rosters | None = None
        self._expiry = asyncio.Event()
        self._server: grpc.aio.Server | None = None

    async def start(self, path: Path, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Listen on a unix socket, for what comes through the front. Raises SystemRefusedError."""
        server = grpc.aio.server(options=_OPTIONS)
        ads = delta_handler(self._serving(self._delta))
        register: grpc.RpcMethodHandler[bytes, bytes]
        register = grpc.stream_stream_rpc_method_handler(self._serving(self._register))
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(_ADS, {"DeltaAggregatedResources": ads}),
                grpc.method_handlers_generic_handler(NODES, {"Register": register}),
                *handlers,
            )
        )
        try:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            path.chmod(0o600)
        except (RuntimeError, OSError) as error:
            raise SystemRefusedError(f"{path}: cannot serve nodes there: {error}") from None
        self._server = server

    async def stop(self) -> None:
        if self._server:
            await self._server.stop(grace=None)
            await self._server.wait_for_termination(_STOP_TIMEOUT)

    # ---- what nodes are told

    def publish(
        self, resources: Resources, private: Callable[[str], Resources] = lambda _: EMPTY
    ) -> None:
        """Publish what nodes are to have; ``private``: by node's name, and of other types."""
        before = self._resources or EMPTY
        changed = difference(before, resources)
        first, self._resources, self._private = self._resources is None, resources, private
        for node in self._nodes:
            own = private(node.name)
            differing = changed | difference(node.private, own)
            former, node.private = _together(before, node.private), own
            told = _together(resources, own)
            if differing or first or _keeps(former) != _keeps(told):
                node.stream.publish(told, differing)
                node.ring()

    async def _delta(self, name: str, _bounds: Bounds, context: DeltaContext) -> None:
        own = self._private(name)
        all_of_it = _together(self._resources, own) if self._resources is not None else None
        node = _Node(name, UnorderedStream(all_of_it), own, noted=reports.noting(self._attempts))
        connection = Connection(context, node.following)
        node.ring = connection.ring
        self._nodes.add(node)
        try:
            await connection.serve(node.receive)
        finally:
            self._nodes.discard(node)

    # ---- streams

    def _serving(
        self,
        talk: Callable[
            [str, Bounds, grpc.aio.ServicerContext[Asked, Told]], Coroutine[object, object, None]
        ],
    ) -> Callable[[object, grpc.aio.ServicerContext[Asked, Told]], Awaitable[None]]:
        """Return a gRPC handler: ``talk`` with nodes that belong here, for as long as they do."""

        async def admitted(peer: Peer, context: grpc.aio.ServicerContext[Asked, Told]) -> None:
            bounds = await self._admit(peer)
            async with self.holders.held(peer.node, instance_of(context), talk.__name__):
                await _greet(context)
                await talk(peer.node, bounds, context)

        async def handle(_: object, context: grpc.aio.ServicerContext[Asked, Told]) -> None:
            code, reason = grpc.StatusCode.PERMISSION_DENIED, ""
            try:
                peer = self._peer(context)
                # Before it is admitted, so that who is removed at this very moment is cut off too.
                with self.streams.opened(peer) as stream:
                    await _until_cut(admitted(peer, context), stream)
                if stream.cut.done():
                    code, reason = grpc.StatusCode.UNAUTHENTICATED, stream.cut.result()
            except InvalidInputError as error:
                reason = str(error)
            except MeshdError as error:
                code, reason = grpc.StatusCode.UNAVAILABLE, str(error)
            except asyncio.CancelledError:
                return  # that is how gRPC says that the node hung up, or that we do
            if reason:
                await context.abort(code, reason)

        return handle

    # ---- what nodes tell

    @property
    def rosters(self) -> rosters.Rosters:
        return self._rosters or {}

    def restore(self, workloads: Iterable[Workload], own: str = "") -> None:
        """Restore what was known before this process began, except about the server's ``own`` node.

        Until then nothing is reported as gone.
        """
        if self._rosters is None:
            self._rosters = rosters.restored(workloads, self._clock(), own)
            self._expiry.set()

    async def _register(
        self, node: str, bounds: Bounds, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> None:
        if self._rosters is None:
            raise NotReadyError("the server is just starting")
        self._set(rosters.connected(self.rosters, node, self._clock(), bounds))
        _log.info("node %s connected", node, extra={"MESHD_EVENT": "node"})
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                report = reports.read(self._attempts, node, message)
                with reports.noting(self._attempts)(reports.name_of(node)):
                    refused = self._told(node, report)
                taken = Taken(refused, self._clock(), self._facts)
                await context.write(msgspec.json.encode(taken))
        finally:
            self._set(rosters.disconnected(self.rosters, node, self._clock()))
            _log.info("node %s disconnected", node, extra={"MESHD_EVENT": "node-gone"})

    def _told(self, node: str, report: rosters.Report) -> Mapping[str, str]:
        """Take a report; return why workloads of it were rejected, by uid."""
        before = self.rosters[node].refused
        self._set(rosters.told(self.rosters, node, report.workloads, report.unusable))
        refused = self.rosters[node].refused
        for uid in refused.keys() - before.keys():
            _log.warning(
                "workload %s of node %s is rejected: %s",
                *(shown(uid), node, refused[uid]),
                extra={"MESHD_EVENT": "workload-refused", "MESHD_WORKLOAD": uid},
            )
        return refused

    async def expel(self, node: str) -> None:
        """Remove a node: its workloads are gone when this returns."""
        await self.streams.cut(node, f"node {node} was removed")
        self._set(rosters.removed(self.rosters, node))

    def _set(self, new: rosters.Rosters) -> None:
        before, self._rosters = self.rosters, new
        self._expiry.set()
        if rosters.workloads_of(before) != rosters.workloads_of(new):
            self._changed()

    async def forget_for_ever(self) -> None:
        """Drop the workloads of nodes that stay away."""
        while True:
            self._expiry.clear()
            due = rosters.next_expiry(self.rosters, self._grace)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(due - self._clock(), 0.0) if due else None):
                    await self._expiry.wait()
            self._set_expired()

    def _set_expired(self) -> None:
        left = rosters.expired(self.rosters, self._clock(), self._grace)
        for node in self.rosters.keys() - left.keys():
            _log.warning(
                "node %s stayed away: its workloads are removed",
                node,
                extra={"MESHD_EVENT": "node-lost"},
            )
        if self._rosters is not None and left is not self._rosters:
            self._set(left)

    def statuses(self) -> tuple[wire.NodeStatus, ...]:
        nodes = {node.name: node for node in self._nodes}
        return tuple(
            wire.NodeStatus(
                name=name,
                connected=roster.connections > 0,
                since=roster.since,
                workloads=len(roster.workloads),
                synced=name in nodes and nodes[name].synced,
                rejected=tuple(
                    f"{url.rpartition('/')[2]} {of}: {rejection.reason}"
                    for (url, of), rejection in nodes[name].stream.rejections.items()
                )
                if name in nodes
                else (),
                kept_out=tuple(f"{shown(uid)}: {why}" for uid, why in roster.refused.items()),
                conflict=self.holders.problem(name),
            )
            for name, roster in sorted(self.rosters.items())
        )


def _together(shared: Resources, own: Resources) -> Resources:
    by_type = {**shared.by_type, **own.by_type}
    return dataclasses.replace(shared, by_type=by_type, untold=shared.untold | own.untold)


def _keeps(told: Resources) -> tuple[object, object]:
    """Return what nodes keep although they are not told of it."""
    return told.removed_types, told.untold


async def _until_cut(talking: Coroutine[object, object, None], stream: Stream) -> None:
    """Talk until the stream is cut; raises whatever the talking raises."""
    await first_of(talking, asyncio.wait((stream.cut,)))


async def _greet(context: grpc.aio.ServicerContext[Asked, Told]) -> None:
    """Send the initial metadata. If the stream is cut meanwhile, only after that: gRPC would send
    them twice then, fail, and leave the node without a status."""
    sending = asyncio.ensure_future(context.send_initial_metadata(()))
    try:
        await asyncio.shield(sending)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GREETING):
                await asyncio.gather(sending, return_exceptions=True)
