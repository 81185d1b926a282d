"""Decides which endpoints are reached by the short way: inside a proxy, without TLS.

It is for what mutual TLS of the mesh is for, between workloads of this node, and for nothing else:
an endpoint that does not accept mutual TLS is reached as before, and so is an address of this
node's that a WorkloadEntry claims, or one that a workload does not have. Whatever is missing, a
certificate or a part of capture, closes the short way. So does an AuthorizationPolicy that asks for
the name in a client's TLS hello, since there is none. Behind the short way all other policies are
judged as they are behind mutual TLS: such an endpoint is another one than that without policies, so
that no connection of before passes them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from meshd.compile.policy.authorization import (
    is_asked_for_server_names,
    is_guarded,
    policies_of,
)
from meshd.model.service import Endpoint
from meshd.model.short_way import Inside, obstacle, own_addresses
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Identity, Workload


class Near(msgspec.Struct, frozen=True):
    """A workload that may be reached by the short way."""

    inside: Inside
    account: tuple[str, str]
    """Namespace and service account."""
    addresses: frozenset[str]


def reachable(snapshot: Snapshot) -> dict[str, Near]:
    """Return the workloads that may be reached by the short way, by uid."""
    options = snapshot.options
    destinations = snapshot.short_way.destinations if options.short_way else ()
    found = ((uid, snapshot.workloads.get(uid)) for uid in destinations)
    policies = policies_of(snapshot)
    root = options.root_namespace
    return {
        uid: _near(workload, options.trust_domain, judged=is_guarded(policies, workload, root))
        for uid, workload in found
        if workload is not None
        and not obstacle(workload)
        and not is_asked_for_server_names(policies, workload, root)
    }


def with_short_way(places: tuple[Endpoint, ...], near: Mapping[str, Near]) -> tuple[Endpoint, ...]:
    """Return endpoints, those with the short way that are reached by it; the very same if none
    is."""
    if not any(place.workload in near for place in places):
        return places
    return tuple(
        msgspec.structs.replace(place, inside=found.inside)
        if (found := near.get(place.workload)) and _is_meant(place, found)
        else place
        for place in places
    )


def _is_meant(place: Endpoint, near: Near) -> bool:
    """Return whether an endpoint is this workload itself, as its own certificate would show."""
    return (
        place.mutual_tls
        and place.address in near.addresses
        and (place.namespace, place.service_account) == near.account
    )


def _near(workload: Workload, trust_domain: str, *, judged: bool) -> Near:
    identity = Identity(trust_domain, workload.namespace, workload.service_account)
    return Near(
        Inside(workload.netns, identity.uri, judged),
        (workload.namespace, workload.service_account),
        frozenset(own_addresses(workload)),
    )
