"""Tunnels that arrive: which connections in them go where."""

from __future__ import annotations

import msgspec


class End(msgspec.Struct, frozen=True):
    """A workload to which tunnels lead."""

    uid: str
    upstream: str
    """For all ports but these."""
    inspected: tuple[int, ...]
    """Ports at which the first bytes tell the protocol."""
    inspecting_upstream: str
    """For those."""


class Ends(msgspec.Struct, frozen=True):
    """The workloads with an address: more than one where networks have it in common."""

    address: str
    ends: tuple[End, ...]


class HboneRoutes(msgspec.Struct, frozen=True):
    """The route table of the tunnels that arrive at any workload of the node."""

    name: str
    ends: tuple[Ends, ...]
    refused: tuple[int, ...]
    """Ports to which no tunnel leads."""
