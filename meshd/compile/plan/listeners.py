"""Listeners: where connections arrive, what is found out of them, and the chains that wait."""

from __future__ import annotations

import msgspec

from meshd.compile.plan.chains import Chain, Owner
from meshd.compile.plan.choices import Way


class Socket(msgspec.Struct, frozen=True, kw_only=True):
    """A port of some addresses in a network namespace."""

    addresses: tuple[str, ...]
    port: int
    netns: str
    """Path; empty: the host's."""
    near: bool = False
    """Clients are in the proxy's own host."""


class Callers(msgspec.Struct, frozen=True):
    """The callers whose connections a listener takes."""

    known: tuple[str, ...]
    """SPIFFE URIs."""
    refused: str
    """The chain for the connections of all others."""


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A place where connections arrive; without a socket, those that other listeners hand over."""

    name: str
    statistics: str = ""
    """Name in statistics."""
    socket: Socket | None = None
    original_destination: bool = False
    """Connections were redirected here: the address that the client wanted is looked up."""
    owner: Owner | None = None
    """Noted, with the connection's own addresses, for the listener that is next."""
    notes_inside: bool = False
    """Connections come by the short way: what upstreams say of the endpoint, and listeners of the
    caller, is noted as it is of connections whose mutual TLS has ended here."""
    hands_over: bool = True
    """The owner is noted with the connection's own addresses; otherwise chains do that."""
    notes_address: bool = False
    """Routes learn the address that the client wanted."""
    names_callers: bool = False
    """As ``Chain.names_callers``, for all chains. Listeners that take connections over do not pass
    it on."""
    into_tunnels: bool = False
    """Connections go into tunnels: of each, upstreams say where its tunnel ends."""
    callers: Callers | None = None
    """Whose connections by the short way are taken; None: everybody's."""
    as_the_client: bool = False
    """Upstream connections have the client's own address."""
    inspects_tls: bool = False
    inspects_http: bool = False
    patience: float | None = None
    """Seconds to wait for the first bytes (0: any time), after which the connection goes on as it
    is; None: nothing is waited for."""
    choice: Way | None = None
    """None: there is one chain only."""
    chains: tuple[Chain, ...]
    default: Chain | None = None

    def chain(self, name: str) -> Chain | None:
        """Return the chain of a name."""
        return next((chain for chain in self.chains if chain.name == name), None)


class DatagramListener(msgspec.Struct, frozen=True, kw_only=True):
    """A place where datagrams arrive, all of which go to one upstream."""

    name: str
    statistics: str
    socket: Socket
    upstream: str
    idle_timeout: float
    """Seconds that a sender may wait for an answer."""
