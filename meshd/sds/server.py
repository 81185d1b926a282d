"""Serves secrets to the pool over SDS on a unix socket, whose directory decides who may connect.

This module owns the gRPC server and its clients; ``subscriber`` decides what a client is told. It
serves the incremental variant, the older one, and the aggregated service for clients that keep all
subscriptions on one stream, as the pool does by way of ``front``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from meshd.api.secret_files import is_of_files
from meshd.base.errors import SystemRefusedError
from meshd.sds.subscriber import Request, Response, Secret, Secrets, Subscriber
from meshd.wire import channel

TYPE: Final = "type.googleapis.com/" + secret_pb2.Secret.DESCRIPTOR.full_name
_SDS: Final = "envoy.service.secret.v3.SecretDiscoveryService"
_ADS: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_STOP_TIMEOUT: Final = 1.0
"""Seconds for gRPC to end what serves clients."""
_LONGEST_REASON: Final = 500
_LAST_WRITE: Final = 1.0
"""Seconds for a write to notice that its client has hung up."""
_MOST_REFUSALS: Final = 1000
"""Of which it is remembered that they were logged."""

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
        self._clients: set[_Client] = set()
        self._writes: set[asyncio.Task[None]] = set()
        self._refused: set[tuple[str, str]] = set()
        self._server: grpc.aio.Server | None = None

    async def start(self, path: Path, aggregated: Any = None) -> None:
        """Listen. The socket is for its owner and its group, which is that of the directory.

        ``aggregated`` handles the aggregated service's incremental variant; None: there are
        secrets only.

        Raises InvalidInputError or SystemRefusedError when that cannot be.
        """
        channel.check_length(path)
        server = grpc.aio.server()
        delta, whole = _handler(self.serve, delta=True), _handler(self.serve, delta=False)
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
        """Publish what clients are to have from now on, beside secrets in files."""
        self._secrets = dataclasses.replace(secrets, files=self._files)
        for client in self._clients:
            self._start_write(client)

    def publish_files(self, files: Mapping[str, Secret | None]) -> None:
        """Publish secrets in files that configuration names, by the secret's name."""
        self._files = files
        self.publish(self._secrets)

    def wanted_files(self) -> frozenset[str]:
        """Return the names of secrets in files that clients ask for."""
        names = frozenset[str]().union(*(client.subscriber.names for client in self._clients))
        return frozenset(filter(is_of_files, names))

    def _start_write(self, client: _Client) -> None:
        if client.writing or (response := client.subscriber.next(self._secrets)) is None:
            return
        client.writing = True
        task = client.write = asyncio.create_task(self._write(client, response))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, client: _Client, response: Response) -> None:
        """Write one message at a time while there is more, so that no client waits for another."""
        try:
            found: Response | None = response
            while found is not None:
                await client.context.write(_encode(found, delta=client.delta))
                found = client.subscriber.next(self._secrets)
        except (grpc.aio.BaseError, asyncio.InvalidStateError):
            pass  # it hung up; whoever reads from it sees that, too
        finally:
            client.writing = False

    async def serve(self, context: Any, *, delta: bool) -> None:
        """Serve one client until it hangs up; ``context`` has its ``read`` and ``write``."""
        client = _Client(context, delta=delta)
        self._clients.add(client)
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                self._receive(client, message)
        except asyncio.CancelledError:
            pass  # that is how gRPC says that the client hung up, or that we do
        finally:
            self._clients.discard(client)
            if client.write:
                # gRPC ends the call when this returns, and cannot with a write under way.
                await asyncio.wait((client.write,), timeout=_LAST_WRITE)

    def _receive(self, client: _Client, message: Any) -> None:
        client.name = client.name or message.node.id
        if message.type_url not in {TYPE, ""}:
            return  # on an aggregated stream; there is nothing of another kind here
        refusal = client.subscriber.receive(_decode(message, delta=client.delta))
        if refusal:
            self._log_refusal(client.name, refusal.names, refusal.reason)
        self._start_write(client)
        self.asked()

    def _log_refusal(self, proxy: str, names: tuple[str, ...], reason: str) -> None:
        """Log a refusal once, however often the proxy repeats it."""
        reason = " ".join(reason.split())[:_LONGEST_REASON]
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


class _Client:
    """One client's stream."""

    __slots__ = ("context", "delta", "name", "subscriber", "write", "writing")

    def __init__(self, context: Any, *, delta: bool) -> None:
        self.context = context
        self.delta = delta
        self.name = ""
        self.subscriber = Subscriber(whole=not delta)
        self.writing = False
        self.write: asyncio.Task[None] | None = None


def _handler(serve: Any, *, delta: bool) -> Any:
    @functools.wraps(serve)
    async def handle(_: Any, context: Any) -> None:
        await serve(context, delta=delta)

    if delta:
        return grpc.stream_stream_rpc_method_handler(
            handle,
            discovery_pb2.DeltaDiscoveryRequest.FromString,
            discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
    return grpc.stream_stream_rpc_method_handler(
        handle,
        discovery_pb2.DiscoveryRequest.FromString,
        discovery_pb2.DiscoveryResponse.SerializeToString,
    )


def _decode(message: Any, *, delta: bool) -> Request:
    error = message.error_detail.message if message.HasField("error_detail") else None
    if not delta:
        return Request(tuple(message.resource_names), nonce=message.response_nonce, error=error)
    return Request(
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        dict(message.initial_resource_versions),
        message.response_nonce,
        error,
    )


def _encode(response: Response, *, delta: bool) -> Any:
    bodies = [{"type_url": TYPE, "value": secret.body} for _, secret in response.secrets]
    if not delta:
        return discovery_pb2.DiscoveryResponse(
            type_url=TYPE,
            nonce=response.nonce,
            version_info=response.nonce,
            resources=bodies,
        )
    return discovery_pb2.DeltaDiscoveryResponse(
        type_url=TYPE,
        nonce=response.nonce,
        removed_resources=response.removed,
        resources=[
            discovery_pb2.Resource(name=name, version=secret.version, resource=body)
            for (name, secret), body in zip(response.secrets, bodies, strict=True)
        ],
    )
