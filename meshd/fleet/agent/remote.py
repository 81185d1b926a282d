"""An agent's connection to its server: TLS with the node's own certificate, and signing by it.

Keys are made here and never leave; a request goes to the server and a chain comes back. Without the
server the agent keeps what it has, and asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from meshd import wire
from meshd.base import tasks
from meshd.base.errors import InvalidInputError, MeshdError, UnreachableError
from meshd.base.moments import date, span
from meshd.ca import answers, authority
from meshd.ca.authority import Issued, Request
from meshd.fleet.joining import clocks
from meshd.fleet.joining.address import address_of, split_address
from meshd.fleet.joining.node import SERVER_NAME, Credentials, NodeFile, new_request, private_pem
from meshd.fleet.server.istio_ca import METHOD
from meshd.protos.istio_ca_pb2 import IstioCertificateRequest, IstioCertificateResponse

_TIMEOUT: Final = 10.0
"""Seconds for the server to answer a request."""
_PAUSE: Final = 10.0
"""Seconds between attempts to renew the node's certificate."""
_LONGEST_SLEEP: Final = 60.0
_NOT_VERIFIED: Final = "its certificate is not valid for this node"
_OPTIONS: Final = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.initial_reconnect_backoff_ms", 200),
    # Despite its name: for TCP, TLS and HTTP/2 to begin, which takes four round trips.
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 3000),
    # A peer that vanished without a word is noticed in seconds, not when TCP gives up.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),
)

Metadata = tuple[tuple[str, str], ...]
"""What the server is told with each call: which running machine this is."""

_log = logging.getLogger(__name__)


def open_channel(server: str, credentials: Credentials) -> grpc.aio.Channel:
    """Open a channel; the caller closes it."""
    tls = grpc.ssl_channel_credentials(credentials.roots, credentials.key, credentials.chain)
    return grpc.aio.secure_channel(address_of(server), tls, options=_OPTIONS)


def check_usable(credentials: Credentials, server: str, now: float) -> None:
    """Raises InvalidInputError when no server would take the node's certificate."""
    if now >= credentials.expires:
        raise InvalidInputError(
            f"this node's certificate ended on {date(credentials.expires)}, "
            f"{span(now - credentials.expires)} ago by this host's clock: if that is right, "
            f"run: meshctl join {server} --token TOKEN, with a new token; else set the clock"
        )
    if now < credentials.begins:
        raise InvalidInputError(
            f"this node's certificate is valid from {date(credentials.begins)} only, and this "
            f"host's clock is {span(credentials.begins - now)} before that: set the clock"
        )


def explain(error: grpc.aio.AioRpcError, server: str) -> MeshdError:
    """Convert gRPC's error into a message for users."""
    details = " ".join((error.details() or "").split())
    if error.code() is grpc.StatusCode.PERMISSION_DENIED:
        return InvalidInputError(f"server {server} refused: {details}")
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return UnreachableError(f"server {server} closed the connection: {details}")
    if "CERTIFICATE_VERIFY_FAILED" in details or "verification check failed" in details:
        return UnreachableError(
            f"server {server}: {_NOT_VERIFIED}: it has another authority, or one of the clocks is "
            "wrong"
        )
    reason = details.rpartition("last error: ")[2].rpartition(": ")[2] or error.code().name
    return UnreachableError(f"server {server} does not answer: {reason}")


async def diagnose(error: grpc.aio.AioRpcError, server: str, now: float) -> MeshdError:
    """Convert gRPC's error as ``explain`` does; if the server could not be verified, ask it for its
    time.

    Its time is not to be trusted, but is shown.
    """
    found = explain(error, server)
    if _NOT_VERIFIED in str(found):
        from meshd.fleet.joining import joining  # noqa: PLC0415 - it loads OpenSSL, 5 MB

        with contextlib.suppress(MeshdError):
            told = await joining.ask_roots(split_address(server))
            if problem := clocks.difference(now, told.now, f"server {server}"):
                return InvalidInputError(problem)
    return found


class Remote:
    """A ``Signer`` that asks the server, and keeps this node's own certificate valid.

    The certificate is also renewed once after each start, so that a machine and its clone have
    different ones as soon as either has restarted: the server then knows only one of them.
    ``changed`` is called when the node's certificate, or its problem, has changed.
    """

    def __init__(
        self,
        server: str,
        file: NodeFile,
        *,
        renew_at: float,
        metadata: Metadata = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises MeshdError when the node has no certificate."""
        self._server = server
        self._metadata = metadata
        self._file = file
        self._renew_at = renew_at
        self._clock = clock
        self._credentials = file.load()
        self._channel: grpc.aio.Channel | None = None
        self._problem = ""
        self._started_with = self._credentials.chain
        self.changed: Callable[[], None] = lambda: None

    async def sign(self, request: Request, now: float) -> Issued:
        """Raises MeshdError."""
        chain, roots = await self._ask(request.csr, request.lifetime, now)
        if roots != self._credentials.roots:
            self._take(Credentials(self._credentials.key, self._credentials.chain, roots))
        leaf = x509.load_pem_x509_certificate(chain)
        begins = leaf.not_valid_before_utc.timestamp()
        expires = leaf.not_valid_after_utc.timestamp()
        clocks.check_counts(begins, expires, now)
        return Issued(chain, leaf.serial_number, begins, expires)

    def roots(self) -> bytes:
        return self._credentials.roots

    def states(self) -> Iterable[wire.CertificateState]:
        """Yield the state of the node's own certificate."""
        held = self._credentials
        serial = f"{held.leaf.serial_number:x}"
        yield wire.CertificateState(held.uri, held.expires, serial, self._problem)

    async def run(self) -> None:
        """Renew the node's certificate for ever."""
        while True:
            if self._clock() >= self._due():
                await self._renew()
            elif self._credentials.chain == self._started_with:
                await self._renew(early=True)
            failed = self._problem or self._credentials.chain == self._started_with
            due = max(self._due(), self._clock()) if not failed else self._clock() + _PAUSE
            await asyncio.sleep(min(max(due - self._clock(), 0.1), _LONGEST_SLEEP))

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    def _due(self) -> float:
        held = self._credentials
        return held.begins + (held.expires - held.begins) * self._renew_at

    async def _renew(self, *, early: bool = False) -> None:
        """Renew the node's certificate; with ``early``, a failure is no problem yet."""
        key = authority.new_key()
        try:
            csr = new_request(key, self._credentials.uri)
            chain, roots = await self._ask(csr, 0, self._clock())
            new = Credentials(private_pem(key), chain, roots)
            clocks.check_counts(new.begins, new.expires, self._clock())
            self._take(new)
        except MeshdError as error:
            if early:
                return
            if str(error) != self._problem:
                _log.error("this node: %s", error, extra={"MESHD_EVENT": "ca"})
            self._problem = str(error)
        else:
            self._problem = ""
            _log.info(
                "this node has a new certificate until %s",
                date(self._credentials.expires),
                extra={"MESHD_EVENT": "certificate"},
            )
        self.changed()

    def _take(self, credentials: Credentials) -> None:
        """Raises SystemRefusedError; then nothing has changed."""
        self._file.save(credentials)
        self._credentials = credentials
        # Whoever is at it finishes; what comes next proves itself with the new certificate.
        channel, self._channel = self._channel, None
        if channel is not None:
            tasks.start(channel.close(grace=_TIMEOUT), "closing a connection to the server")

    async def _ask(
        self, csr: x509.CertificateSigningRequest, lifetime: float, now: float
    ) -> tuple[bytes, bytes]:
        """Ask for a certificate; return chain and roots. Raises MeshdError."""
        self._look_again()
        check_usable(self._credentials, self._server, now)
        if self._channel is None:
            self._channel = open_channel(self._server, self._credentials)
        call = self._channel.unary_unary(
            METHOD,
            request_serializer=IstioCertificateRequest.SerializeToString,
            response_deserializer=IstioCertificateResponse.FromString,
        )
        message = IstioCertificateRequest(
            csr=csr.public_bytes(Encoding.PEM).decode(), validity_duration=int(lifetime)
        )
        try:
            answer = await call(message, timeout=_TIMEOUT, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise await diagnose(error, self._server, now) from None
        *chain, roots = answer.cert_chain or ("",)
        pem = "".join(chain).encode(), roots.encode()
        answers.check(csr, *pem)
        return pem

    def _look_again(self) -> None:
        """Read the file again: the node may have joined anew."""
        with contextlib.suppress(MeshdError):
            found = self._file.load()
            if found != self._credentials:
                self._credentials, self._channel = found, None
                self.changed()
