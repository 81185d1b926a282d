"""Tells whether snapshots' VirtualServices differ in no more than where requests and connections to
some hosts go.

Then the virtual hosts of these are all that depends on it, the listeners of clients where it is
about connections, and gateways. Copies of requests, conditions on clients' labels and, in the mesh,
wildcards reach further.
"""

from __future__ import annotations

import dataclasses

from meshd.api.base import exported
from meshd.api.gateway.types import MESH
from meshd.api.networking import VirtualService
from meshd.base.sequence_difference import SequenceDifference
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.routings import Routing
from meshd.compile.visibility.scope import matches_of
from meshd.compile.visibility.view import View

VirtualServices = tuple[VirtualService, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Rerouted:
    """A difference that does not reach further than virtual hosts and the listeners of clients."""

    virtual_services: VirtualServices
    """All that are in force now, with delegates' routes."""
    difference: SequenceDifference
    """The part of them that is new, and the part of the others that it replaces."""
    is_of_connections: bool
    """Any of those that differ routes what is not HTTP, and workloads send."""
    is_of_gateways: bool
    """Any of those that differ is for what gateways take."""

    def routings(self, old: MeshIndex, new: MeshIndex) -> tuple[Routing, ...]:
        """Return those that came, went or became others."""
        gone = self.difference.of_old(old.routings)
        come = self.difference.of_new(new.routings)
        same = set(gone) & set(come)
        return tuple(routing for routing in (*gone, *come) if routing not in same)


def hosts(routings: tuple[Routing, ...], view: View) -> tuple[str, ...]:
    """Return the hosts of VirtualServices that the clients of a scope see."""
    client = view.scope.namespace
    found = (
        host
        for routing in routings
        if routing.is_of_mesh
        and exported(routing.service.spec.export_to, routing.namespace, client)
        for host in routing.hosts
    )
    return tuple(dict.fromkeys(found))


def rerouted(old: VirtualServices, new: VirtualServices) -> Rerouted | None:
    """Return the difference; None: it reaches further, or the others' order has changed."""
    difference = SequenceDifference.between(old, new)
    before, after = (
        {one.key: one for one in found}
        for found in (difference.of_old(old), difference.of_new(new))
    )
    if [key for key in before if key in after] != [key for key in after if key in before]:
        return None
    differing = [one for key, one in after.items() if before.get(key) != one]
    differing += [one for key, one in before.items() if after.get(key) != one]
    if not all(map(_is_of_hosts, differing)):
        return None
    of_mesh = [one for one in differing if _is_of_mesh(one)]
    return Rerouted(
        new,
        difference,
        is_of_connections=any(one.spec.tls or one.spec.tcp for one in of_mesh),
        is_of_gateways=any(set(one.spec.gateways) - {MESH} for one in differing),
    )


def _is_of_mesh(service: VirtualService) -> bool:
    return not service.spec.gateways or MESH in service.spec.gateways


def _is_of_hosts(service: VirtualService) -> bool:
    """Return whether no more than virtual hosts of its own hosts in the mesh depend on it,
    listeners of clients, and gateways."""
    return (
        not (_is_of_mesh(service) and any("*" in host for host in service.spec.hosts))
        and not any(True for _ in service.mirrors())
        and not any(match.source_labels for match in matches_of(service))
    )
