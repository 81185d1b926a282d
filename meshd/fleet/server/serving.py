"""The server role's own certificate, from its node's identity role."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from meshd import wire
from meshd.base.backoff import Backoff
from meshd.base.errors import MeshdError, NotReadyError
from meshd.ca import authority
from meshd.fleet.joining.join import ALPN
from meshd.fleet.joining.node import SERVER_NAME, Credentials, new_request, node_uri, private_pem

_PAUSE: Final = 10.0
"""Seconds between attempts to have a new certificate."""
_LONGEST_SLEEP: Final = 60.0
_BACKOFF: Final = Backoff(0.05, 2.0)

_log = logging.getLogger(__name__)


class ServingCertificate:
    """A certificate that is valid while ``run`` runs. The key is in memory only."""

    def __init__(
        self,
        trust_domain: str,
        node: str,
        certify: Callable[[wire.Certify], Awaitable[wire.Certified]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._uri = node_uri(trust_domain, node)
        self._certify = certify
        self._clock = clock
        self._held: Credentials | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def held(self) -> Credentials:
        if self._held is None:
            raise NotReadyError("the server has no certificate yet")
        return self._held

    async def wait(self) -> None:
        """Wait for the first certificate: the identity role may start later."""
        failures, told = 0, ""
        while True:
            try:
                return await self.obtain()
            except MeshdError as error:
                failures += 1
                pause = _BACKOFF.pause(failures)
                if pause > 1 and str(error) != told:
                    told = str(error)
                    _log.warning("no certificate yet: %s", told, extra={"MESHD_EVENT": "ca"})
            await asyncio.sleep(pause)

    async def obtain(self) -> None:
        """Raises MeshdError."""
        key = authority.new_key()
        csr = new_request(key, self._uri, (SERVER_NAME,)).public_bytes(Encoding.PEM)
        certified = await self._certify(wire.Certify(csr))
        self._held = Credentials(private_pem(key), certified.chain, certified.roots)
        self._context = _context(self._held)

    async def run(self) -> None:
        """Renew the certificate at half of its life, for ever."""
        while True:
            held = self.held
            due = (held.begins + held.expires) / 2
            await asyncio.sleep(min(max(due - self._clock(), _PAUSE), _LONGEST_SLEEP))
            if self._clock() >= due:
                try:
                    await self.obtain()
                except MeshdError as error:
                    _log.error("server certificate: %s", error, extra={"MESHD_EVENT": "ca"})

    def context(self) -> ssl.SSLContext:
        """Return a context with the newest certificate, for one connection.

        It asks for a client certificate and verifies it, but accepts none: nodes that join have
        none yet.
        """
        if self._context is None:
            raise NotReadyError("the server has no certificate yet")
        return self._context


def _context(held: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a root of ours may be an intermediate
    # Resumed sessions would not be verified again.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols([ALPN, "h2"])
    context.load_verify_locations(cadata=held.roots.decode())
    # Python's ssl takes keys from files only; this one is in memory.
    descriptor = os.memfd_create("server", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, held.key + held.chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
