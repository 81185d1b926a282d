"""Connections with the processes that act on this node's workloads, as ports of the reconciler."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from meshd import wire
from meshd.compile.names import workload_of
from meshd.model.workload import Identity, Observation, Placement
from meshd.node.ports import Listeners
from meshd.wire.link import Link
from meshd.workloads.certified import Certified
from meshd.workloads.lifecycle import owners_accepted, owners_present
from meshd.xds.server import Server

_CERTIFICATES_TIMEOUT: Final = 5.0
"""Seconds after the start of this role for which the identity role is waited for."""
_log: Final = logging.getLogger(__name__)


class Capture:
    """The capture role. ``observed`` is called with all that it sees."""

    def __init__(self, socket: Path, observed: Callable[[tuple[Observation, ...]], None]) -> None:
        self._link = Link(socket, self._receive)
        self._observed = observed
        self.run = self._link.run

    def place(self, placements: tuple[Placement, ...], host_is_known: bool) -> None:
        self._link.tell(wire.Place(placements, host_is_known))

    def _receive(self, message: wire.AnyMessage) -> None:
        if isinstance(message, wire.Observed):
            self._observed(message.observations)
        elif isinstance(message, wire.Failed):
            _log.error("capture: %s", message.reason, extra={"MESHD_EVENT": "capture-failed"})


class Certificates:
    """The identity role, and the certificates that it has. ``changed`` is called when it tells of
    others, and when it is not waited for any more."""

    def __init__(self, socket: Path, changed: Callable[[], None]) -> None:
        self._link = Link(socket, self._receive)
        self._changed = changed
        self._certified = Certified()
        self._is_waited_for = True
        self.states: Mapping[str, wire.CertificateState] = {}
        """By URI."""
        self.problem = ""
        self.files: Mapping[str, str] = {}
        """Why secrets in files cannot be served, by name."""
        self._expiry: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Run until cancelled."""
        timer = asyncio.get_running_loop().call_later(_CERTIFICATES_TIMEOUT, self._give_up)
        try:
            await self._link.run()
        finally:
            timer.cancel()

    @property
    def valid(self) -> frozenset[str]:
        """Return the identities that have a valid certificate now, as SPIFFE URIs."""
        return self._certified.valid(time.time())

    def is_waiting_for(self, uris: Iterable[str]) -> bool:
        """Return whether it is worth waiting to be told which of these identities have a
        certificate: for a while after this role has begun."""
        return self._is_waited_for and not self._certified.told.issuperset(uris)

    def allow(self, identities: tuple[Identity, ...], contacts: int) -> None:
        self._certified = self._certified.allowing({one.uri for one in identities})
        self._link.tell(wire.Allow(identities, contacts))

    def _give_up(self) -> None:
        self._is_waited_for = False
        self._changed()

    def _receive(self, message: wire.AnyMessage) -> None:
        if isinstance(message, wire.Certificates):
            self.states = {state.uri: state for state in message.certificates}
            self._certified = self._certified.telling(message.certificates)
            self.problem = message.problem
            self.files = {state.name: state.problem for state in message.files}
            self._await_expiry()
            self._changed()
        elif isinstance(message, wire.Failed):
            _log.error("identity: %s", message.reason, extra={"MESHD_EVENT": "identity-failed"})

    def _await_expiry(self) -> None:
        """Tell of a change when the first certificate expires, too."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now = time.time()
        first = self._certified.next_expiry(now)
        if first is not None:
            self._expiry = asyncio.get_running_loop().call_later(first - now, self._expired)

    def _expired(self) -> None:
        self._expiry = None
        self._await_expiry()
        self._changed()


class Proxies:
    """The proxies, as clients of the xDS server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def listeners(self) -> Listeners:
        server = self._server
        published, accepted = server.published_names(), server.accepted_names()
        return Listeners(
            missing=server.missing,
            accepted=owners_accepted(published, accepted, workload_of),
            present=owners_present(server.present_names(), workload_of),
            lead=server.lead,
        )
