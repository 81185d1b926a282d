"""How a listener chooses the filter chain of a connection: one tree of questions.

A question whose answer leads nowhere goes on with its ``otherwise``, and so does one of whose
answers none fits. A tree that leads nowhere leaves the connection to the listener's default chain.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.origin import Origin
from meshd.model.short_way import Requests


class To(msgspec.Struct, frozen=True, tag="chain"):
    """An answer: the chain of this name."""

    chain: str
    origin: Origin | None = None
    """The object and field that lead there; None: no object does."""


class ByPort(msgspec.Struct, frozen=True, tag="port"):
    """The port that the client wanted."""

    ways: Mapping[int, Way]
    otherwise: Way | None = None


class ByOtherPort(msgspec.Struct, frozen=True, tag="other_port"):
    """Whether the port that the client wanted is none of these."""

    ports: tuple[int, ...]
    others: Way
    these: Way


class ByAddress(msgspec.Struct, frozen=True, tag="address"):
    """The address that the client wanted."""

    ways: Mapping[str, Way]
    otherwise: Way | None = None


class ByNetwork(msgspec.Struct, frozen=True, tag="network"):
    """The network of that address. Of several, the smallest that leads anywhere counts."""

    ways: Mapping[str, Way]
    otherwise: Way | None = None


class ByBeginning(msgspec.Struct, frozen=True, tag="beginning"):
    """Whether that address begins, as text, with one of these."""

    beginnings: tuple[str, ...]
    way: Way


class ByWorkload(msgspec.Struct, frozen=True, tag="workload"):
    """The uid of the connection's workload."""

    ways: Mapping[str, Way]
    otherwise: Way | None = None


class ByRules(msgspec.Struct, frozen=True, tag="rules"):
    """Whether the workload takes the connection. ``rules``: those of connections."""

    rules: Authorization
    allowed: Way
    refused: str
    """The chain of all others."""


class ByRequests(msgspec.Struct, frozen=True, tag="requests"):
    """Whether the connection came by the short way with requests in this version of HTTP, each of
    which says who makes it."""

    version: Requests
    way: Way
    otherwise: Way


class ByReturn(msgspec.Struct, frozen=True, tag="return"):
    """Whether the connection comes back from the listener to which ``otherwise`` leads."""

    returned: Way | None
    otherwise: Way


class ByTls(msgspec.Struct, frozen=True, tag="tls"):
    """Whether the client speaks TLS. The way of one is never taken for the other."""

    tls: Way | None
    plain: Way | None


class ByServerName(msgspec.Struct, frozen=True, tag="server_name"):
    """The name in the TLS hello: one of ``ways``, else the first suffix that it has."""

    ways: Mapping[str, Way]
    suffixes: tuple[tuple[str, Way], ...] = ()
    otherwise: Way | None = None


class ByHttp(msgspec.Struct, frozen=True, tag="http"):
    """Whether the first line is one of HTTP."""

    http: Way
    otherwise: Way | None
    http10: bool = False
    """HTTP/1.0, which may lack a host, counts as well."""


class ByMeshTls(msgspec.Struct, frozen=True, tag="mesh_tls"):
    """Whether the client offers the mesh's mutual TLS."""

    offered: Way
    otherwise: Way | None


Way = (
    To
    | ByPort
    | ByOtherPort
    | ByAddress
    | ByNetwork
    | ByBeginning
    | ByWorkload
    | ByRules
    | ByRequests
    | ByReturn
    | ByTls
    | ByServerName
    | ByHttp
    | ByMeshTls
)
"""Where a connection goes: to a chain, or on to the next question."""
