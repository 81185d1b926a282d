"""Closes everything that lost configuration might have closed. Pure.

A damaged file may have had policies that require mutual TLS, or routes that lead traffic through an
egress gateway. An object of which meshd dies, and also of its replacement, is lost, too, but its
hosts are known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec

from meshd.api.base import Key, Object
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.hosts import common, resolve
from meshd.api.kubernetes.types import Service
from meshd.api.service_entry.types import ServiceEntry
from meshd.api.virtual_service.types import VirtualService
from meshd.model.closed_authorization import ClosedAuthorization
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.closed_services import closed_record
from meshd.model.snapshot import Snapshot


def closed_for_lost(
    snapshot: Snapshot, given_up: Collection[Object] = (), denying: Iterable[Key] = ()
) -> Snapshot:
    """Return the snapshot with STRICT for the whole mesh, and no way out of the mesh.

    A lost policy may have been for workloads of any namespace and for any port, so that no known
    policy may open one. ``given_up``: objects that are not in force, nor is their replacement. They
    are not in the snapshot; services that they may be about are closed for all clients.
    ``denying``: AuthorizationPolicies that are lost, in whose namespaces everything is denied.
    """
    return msgspec.structs.replace(
        _without(snapshot, given_up),
        peer_authentications=policies_for_lost(snapshot.options.root_namespace),
        authorization_policies=(
            *snapshot.authorization_policies,
            *map(ClosedAuthorization.of, denying),
        ),
        options=msgspec.structs.replace(snapshot.options, outbound_policy="REGISTRY_ONLY"),
    )


def policies_for_lost(root_namespace: str) -> tuple[ClosedPolicy, ...]:
    """Return the policies that replace all others."""
    return (ClosedPolicy.named(root_namespace, "lost"),)


def _without(snapshot: Snapshot, given_up: Collection[Object]) -> Snapshot:
    """Return the snapshot with those services and routes closed that objects may be about."""
    domain, known = snapshot.options.domain, snapshot.services
    patterns = {
        resolve(host, one.metadata.namespace, domain, known)
        for one in given_up
        for host in _hosts(one)
    }
    keys = {one.key for one in given_up}

    def is_about(hosts: Iterable[str]) -> bool:
        return any(common(one, host) for host in hosts for one in patterns)

    def is_lost(routes: VirtualService) -> bool:
        names = (
            resolve(host, routes.metadata.namespace, domain, known) for host in routes.spec.hosts
        )
        return is_about(names) or not keys.isdisjoint(_delegates(routes))

    if not given_up:
        return snapshot
    return msgspec.structs.replace(
        snapshot,
        services={
            key: closed_record(record) if is_about((record.host,)) else record
            for key, record in known.items()
        },
        virtual_services=tuple(
            ClosedRoutes.of(routes) if is_lost(routes) else routes
            for routes in snapshot.virtual_services
        ),
    )


def _delegates(routes: VirtualService) -> Iterator[Key]:
    """Yield the keys of objects to which routes delegate."""
    for route in routes.spec.http:
        if found := route.delegate:
            yield Key(routes.KIND, found.namespace or routes.metadata.namespace, found.name)


def _hosts(found: Object) -> Iterator[str]:
    match found:
        case DestinationRule():
            yield found.spec.host
        case VirtualService() | ServiceEntry():
            yield from found.spec.hosts
        case Service():
            yield found.metadata.name
        case _:
            pass
