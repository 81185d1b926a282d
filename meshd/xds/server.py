"""Serves the published resources to the pools over delta ADS on a unix socket, to each its own.

It owns the gRPC server and the account of its clients; ``stream`` decides what a client is told. A
restart changes nothing for clients: they come back with the versions that they have.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from meshd import wire
from meshd.base.errors import SystemRefusedError
from meshd.model.pool import Pool, pool_of
from meshd.wire import channel
from meshd.xds.connection import Connection
from meshd.xds.exchange import Accepted, Refused, Rejection, Response
from meshd.xds.protocol import (
    DeltaRequest,
    EncodedContext,
    Encoding,
    WholeContext,
    decode,
    encoded_handler,
    whole_handler,
)
from meshd.xds.resources import EMPTY, LISTENER, Resources, difference
from meshd.xds.stream import Stream

_SERVICE: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
)
_ENDPOINTS_TIMEOUT: Final = 5.0
"""Seconds after which listeners no longer wait for a client to ask for a cluster's endpoints."""
_OFFER_AGAIN: Final = 5.0
"""Seconds after which a client is offered again the listeners that it refused."""
_DRAIN_MARGIN: Final = 1.0
"""Seconds by which a client may be late with closing connections of former listeners."""
_HANG_UP: Final = 0.3
"""Seconds."""
_STOP_TIMEOUT: Final = 1.0
"""Seconds for gRPC to end its own tasks, so that a closing loop finds none to complain of."""

_log = logging.getLogger(__name__)


class Member:
    """A connected client. Until it has said which it is, nothing is for it."""

    def __init__(self, drain_time: float = 0.0) -> None:
        self.name = ""
        self._drain_time = drain_time
        self.pool = Pool.TRAFFIC
        self.stream = Stream(drains=drain_time > 0)
        self.ring: Callable[[], None] = lambda: None
        """Called when there may be something to send."""

    def timers(self) -> dict[Callable[[], None], float]:
        """Return what is to be done though nobody asks for it, and after how many seconds."""
        stream = self.stream
        timers: dict[Callable[[], None], float] = {}
        if stream.warming:
            timers[stream.stop_waiting] = _ENDPOINTS_TIMEOUT
        if stream.lacks_listeners:
            timers[stream.offer_again] = _OFFER_AGAIN
        if stream.distrusts_listeners:
            timers[stream.trust_listeners] = self._drain_time + _DRAIN_MARGIN
        if stream.waits_to_remove:
            timers[stream.end_period] = self._drain_time + _DRAIN_MARGIN
        return timers

    def status(self) -> wire.ProxyStatus:
        reasons = (f"{name}: {r.reason}" for (_, name), r in self.stream.rejections.items())
        return wire.ProxyStatus(self.name, True, self.stream.synced, tuple(reasons), self.pool)


class Server:
    """The xDS server. ``changed`` is called when a client connects, goes, accepts or refuses
    something. ``drain_time``: the seconds for which clients keep connections of listeners that
    were replaced."""

    def __init__(
        self, changed: Callable[[], None] = lambda: None, *, drain_time: float = 0.0
    ) -> None:
        self._published: Mapping[Pool, Resources] | None = None
        self._members: set[Member] = set()
        self._changed = changed
        self._drain_time = drain_time
        self._waiters: set[asyncio.Future[None]] = set()
        self._server: grpc.aio.Server | None = None
        self._connections: set[Connection[DeltaRequest, Response]] = set()

    async def start(self, path: Path) -> None:
        """Listen. Raises InvalidInputError or SystemRefusedError when that cannot be.

        The socket is for its owner and its group, which is that of the directory.
        """
        channel.check_length(path)
        server = grpc.aio.server(options=_OPTIONS)
        handlers = {
            "DeltaAggregatedResources": encoded_handler(self._delta),
            "StreamAggregatedResources": whole_handler(_state_of_the_world),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        try:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            channel.share_with_group(path)
        except (RuntimeError, OSError) as error:
            raise SystemRefusedError(f"{path}: cannot serve proxies there: {error}") from None
        self._server = server

    async def stop(self) -> None:
        """Hang up on all clients. They keep what they have."""
        if self._server:
            # By ourselves: gRPC would do it by cancelling, and complain of that on stderr.
            for connection in self._connections:
                connection.hang_up()
            await self._server.stop(grace=_HANG_UP)
            await self._server.wait_for_termination(_STOP_TIMEOUT)

    # ---- what is published

    def publish(self, resources: Mapping[Pool, Resources]) -> None:
        """Publish what clients are to have; no two resources of one type have the same name.

        A client is sent what differs for it; whatever is published before it has answered goes into
        one response.
        """
        first, before = self._published is None, self._published or {}
        self._published = resources
        changed = {
            pool: difference(before.get(pool, EMPTY), resources.get(pool, EMPTY)) for pool in Pool
        }
        for member in self._named():
            if first or changed[member.pool]:
                self._hand_over(member, changed[member.pool])
        self._tell()

    def _hand_over(
        self, member: Member, changed: Mapping[str, frozenset[str]] | None = None
    ) -> None:
        """Give a client's stream the resources; ``changed``: since the last time; None: it is the
        first."""
        if self._published is None:
            return
        resources = self._published.get(member.pool, EMPTY)
        if changed is None:
            member.stream.replace(resources)
        else:
            member.stream.publish(resources, changed)
        member.ring()

    def published_names(self, type_url: str = LISTENER) -> frozenset[str]:
        """Return the published names of any pool."""
        parts = (self._published or {}).values()
        return frozenset(name for part in parts for name in part.of_type(type_url))

    # ---- what clients have

    @property
    def connected(self) -> int:
        return sum(1 for _ in self._named())

    def members(self) -> tuple[wire.ProxyStatus, ...]:
        """Return the connected clients, by name."""
        return tuple(sorted((m.status() for m in self._named()), key=lambda status: status.name))

    @property
    def missing(self) -> tuple[Pool, ...]:
        """Return the pools without a connected client."""
        return tuple(pool for pool in Pool if not self._serving(pool))

    def accepted_names(self, type_url: str = LISTENER) -> frozenset[str]:
        """Return the published names that every client they are for has accepted in this version.

        There is at least one such client.
        """
        accepted: set[str] = set()
        for pool, resources in (self._published or {}).items():
            held = [member.stream.held(type_url) for member in self._serving(pool)]
            accepted.update(
                name
                for name, resource in resources.of_type(type_url).items()
                if held and all(had.get(name) == resource.version for had in held)
            )
        return frozenset(accepted)

    def present_names(self, type_url: str = LISTENER) -> frozenset[str]:
        """Return the names that are published, or that some connected client has or may yet get."""
        return self.published_names(type_url).union(
            *(member.stream.may_have(type_url) for member in self._members)
        )

    def rejections(self) -> dict[tuple[str, str], Rejection]:
        """Return what some client refuses of what is published, by type URL and name."""
        return {
            key: rejection
            for member in self._named()
            for key, rejection in member.stream.rejections.items()
        }

    def avoiding(self, listener: str) -> tuple[str, ...]:
        """Return the clients that endpoints do not lead to an internal listener yet."""
        return tuple(sorted(one.name for one in self._named() if listener in one.stream.avoided))

    @property
    def lead(self) -> bool:
        """Return whether all clients lead connections as published, but for what they refused."""
        return all(member.stream.leads for member in self._named())

    @property
    def settled(self) -> bool:
        """Return whether each pool has clients, and each has all that is for it except what it
        refused."""
        return not self.missing and all(member.stream.settled for member in self._named())

    async def wait_settled(self, timeout: float) -> bool:
        """Return whether clients settle within ``timeout`` seconds. See also ``rejections``."""
        return await self.wait(lambda: self.settled, timeout)

    async def wait(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Return whether a predicate becomes true within ``timeout`` seconds; it is checked at each
        change."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not predicate():
                    await self._next_change()
        return predicate()

    async def _next_change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _tell(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._changed()

    def _named(self) -> Iterator[Member]:
        """Yield the clients that have said which they are."""
        return (member for member in self._members if member.name)

    def _serving(self, pool: Pool) -> list[Member]:
        return [member for member in self._named() if member.pool is pool]

    # ---- one client

    async def _delta(self, _: object, context: EncodedContext) -> None:
        member = Member(self._drain_time)
        connection = Connection(Encoding(context), member.stream.next, member.timers)
        member.ring = connection.ring
        self._members.add(member)
        self._connections.add(connection)
        try:
            await connection.serve(functools.partial(self._receive, member, context))
        except asyncio.CancelledError:
            pass  # that is how gRPC says that the client hung up, or that we do
        finally:
            self._members.discard(member)
            self._connections.discard(connection)
            _log.info(
                "proxy %s closed the connection", member.name, extra={"MESHD_EVENT": "proxy-gone"}
            )
            self._tell()

    async def _receive(
        self, member: Member, context: EncodedContext, message: DeltaRequest
    ) -> None:
        if not member.name:
            pool = pool_of(message.node.cluster)
            if pool is None:
                reason = f'node.cluster "{message.node.cluster}" is none of {", ".join(Pool)}'
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
            member.name, member.pool = message.node.id or "unnamed", pool
            self._hand_over(member)
            _log.info("proxy %s connected", member.name, extra={"MESHD_EVENT": "proxy"})
        known = member.stream.rejections
        answered = member.stream.receive(decode(message))
        if isinstance(answered, Refused) and answered.final and not _is_known(answered, known):
            _log.warning(
                "proxy %s refused %s: %s",
                member.name,
                ", ".join(answered.names),
                answered.reason,
                extra={"MESHD_EVENT": "refused", "MESHD_CONFIG": answered.names[0]},
            )
        if isinstance(answered, Accepted) or answered is None or answered.final:
            self._tell()


def _is_known(refused: Refused, known: Mapping[tuple[str, str], Rejection]) -> bool:
    """Return whether a resource was refused for the same reason before."""
    before = (known.get((refused.type_url, name)) for name in refused.names)
    return all(one is not None and one.reason == refused.reason for one in before)


async def _state_of_the_world(_: object, context: WholeContext) -> None:
    await context.abort(
        grpc.StatusCode.UNIMPLEMENTED,
        "meshd speaks the incremental protocol only: set api_type: DELTA_GRPC in ads_config",
    )
