"""Serves secrets to the pool over SDS on a unix socket, whose directory decides who may connect.

This module owns the gRPC server and its clients; ``subscriber`` decides what a client is told. It
serves the incremental variant, the older one, and the aggregated service for clients that keep all
subscriptions on one stream, as the pool does by way of ``front``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import grpc.aio
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from meshd.api.secret_files import is_of_files
from meshd.base.errors import SystemRefusedError
from meshd.sds.subscriber import Secret, Secrets, Subscriber
from meshd.wire import channel
from meshd.xds.connection import Connection, Endpoint
from meshd.xds.exchange import Request, Response
from meshd.xds.protocol import (
    DeltaContext,
    DeltaRequest,
    DeltaResponse,
    WholeContext,
    WholeRequest,
    WholeResponse,
    decode,
    decode_whole,
    delta_handler,
    encode,
    encode_whole,
    whole_handler,
)
from meshd.xds.resources import SECRET

TYPE: Final = SECRET
_SDS: Final = "envoy.service.secret.v3.SecretDiscoveryService"
_ADS: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_STOP_TIMEOUT: Final = 1.0
"""Seconds for gRPC to end what serves clients."""
_LONGEST_REASON: Final = 500
_MOST_REFUSALS: Final = 1000
"""Of which it is remembered that they were logged."""

Asked = TypeVar("Asked", DeltaRequest, WholeRequest)
Told = TypeVar("Told", DeltaResponse, WholeResponse)
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_log = logging.getLogger(__name__)


def certificate_secret(name: str, version: str, chain: bytes, key: bytes) -> Secret:
    """Return the secret of a certificate; ``chain`` and ``key`` in PEM."""
    message = secret_pb2.Secret(name=name)
    message.tls_certificate.certificate_chain.inline_bytes = chain
    message.tls_certificate.private_key.inline_bytes = key
    return Secret(version, message.SerializeToString())


def trust_secret(name: str, version: str, roots: bytes, revoked: bytes = b"") -> Secret:
    """Return the secret of trusted ``roots`` and a revocation list, ``revoked``, in PEM."""
    message = secret_pb2.Secret(name=name)
    message.validation_context.trusted_ca.inline_bytes = roots
    if revoked:
        message.validation_context.crl.inline_bytes = revoked
    return Secret(version, message.SerializeToString())


class Server:
    """The SDS server. Clients are told nothing before the first ``publish``."""

    def __init__(self) -> None:
        self.asked: Callable[[], None] = lambda: None
        """Called when a client asks for other names than before."""
        self._secrets = Secrets()
        self._files: Mapping[str, Secret | None] = {}
        self._beside: dict[str, Secret] = {}
        self._clients: set[_Client] = set()
        self._refused: set[tuple[str, str]] = set()
        self._server: grpc.aio.Server | None = None

    async def start(self, path: Path, aggregated: Handler | None = None) -> None:
        """Listen. The socket is for its owner and its group, which is that of the directory.

        ``aggregated`` handles the aggregated service's incremental variant; None: there are
        secrets only.

        Raises InvalidInputError or SystemRefusedError when that cannot be.
        """
        channel.check_length(path)
        server = grpc.aio.server()
        delta, whole = delta_handler(self._delta), whole_handler(self._whole)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    _SDS, {"DeltaSecrets": delta, "StreamSecrets": whole}
                ),
                grpc.method_handlers_generic_handler(
                    _ADS,
                    {
                        "DeltaAggregatedResources": aggregated or delta,
                        "StreamAggregatedResources": whole,
                    },
                ),
            )
        )
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise SystemRefusedError(
                f"{path.parent}: not a directory that uid {os.geteuid()} may write to; the "
                "supervisor makes it"
            )
        try:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            channel.share_with_group(path)
        except (RuntimeError, OSError) as error:
            raise SystemRefusedError(f"{path}: cannot listen for secrets: {error}") from None
        self._server = server

    async def stop(self) -> None:
        """Hang up on all clients. They keep what they have."""
        if self._server:
            await self._server.stop(grace=None)
            await self._server.wait_for_termination(_STOP_TIMEOUT)

    @property
    def clients(self) -> int:
        """Return the number of open streams."""
        return len(self._clients)

    def publish(self, secrets: Secrets) -> None:
        """Publish what clients are to have from now on, beside what has functions of its own."""
        self._secrets = dataclasses.replace(secrets, files={**self._files, **self._beside})
        for client in self._clients:
            client.ring()

    def publish_files(self, files: Mapping[str, Secret | None]) -> None:
        """Publish secrets in files that configuration names, by the secret's name."""
        self._files = files
        self.publish(self._secrets)

    def publish_beside(self, name: str, secret: Secret) -> None:
        """Publish a secret that depends on nothing else."""
        self._beside[name] = secret
        self.publish(self._secrets)

    def wanted_files(self) -> frozenset[str]:
        """Return the names of secrets in files that clients ask for."""
        names = frozenset[str]().union(*(client.subscriber.names for client in self._clients))
        return frozenset(filter(is_of_files, names))

    async def serve_delta(self, endpoint: Endpoint[DeltaRequest, DeltaResponse]) -> None:
        """Serve a client of the incremental variant until it hangs up."""
        await self._serve(endpoint, Subscriber(), decode, encode)

    async def _delta(self, _: object, context: DeltaContext) -> None:
        await self.serve_delta(context)

    async def _whole(self, _: object, context: WholeContext) -> None:
        await self._serve(context, Subscriber(whole=True), decode_whole, encode_whole)

    async def _serve(
        self,
        endpoint: Endpoint[Asked, Told],
        subscriber: Subscriber,
        decoded: Callable[[Asked], Request],
        encoded: Callable[[Response], Told],
    ) -> None:
        def following() -> Told | None:
            response = subscriber.next(self._secrets)
            return encoded(response) if response else None

        async def receive(message: Asked) -> None:
            client.name = client.name or message.node.id
            if message.type_url in {TYPE, ""}:  # there is nothing of another kind here
                self._receive(client, decoded(message))

        connection = Connection(endpoint, following)
        client = _Client(subscriber, connection.ring)
        self._clients.add(client)
        try:
            await connection.serve(receive)
        except (asyncio.CancelledError, grpc.aio.BaseError, asyncio.InvalidStateError):
            pass  # that is how gRPC says that the client hung up, or that we do
        finally:
            self._clients.discard(client)

    def _receive(self, client: _Client, request: Request) -> None:
        if refused := client.subscriber.receive(request):
            self._log_refusal(client.name, refused.names, refused.reason)
        client.ring()
        self.asked()

    def _log_refusal(self, proxy: str, names: tuple[str, ...], reason: str) -> None:
        """Log a refusal once, however often the proxy repeats it."""
        reason = reason[:_LONGEST_REASON]
        seen = (proxy, reason)
        if seen not in self._refused:
            if len(self._refused) >= _MOST_REFUSALS:
                self._refused.clear()
            self._refused.add(seen)
            _log.warning(
                "proxy %s refused the secret %s: %s",
                proxy or "without a name",
                ", ".join(names),
                reason,
                extra={"MESHD_EVENT": "secret-refused"},
            )


@dataclasses.dataclass(eq=False, slots=True)
class _Client:
    """One client's stream. ``ring`` is called when there may be something to send."""

    subscriber: Subscriber
    ring: Callable[[], None]
    name: str = ""
