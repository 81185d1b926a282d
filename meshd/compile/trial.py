"""Clients for which a change of the configuration is compiled before it is stored. Pure.

Only what some workload sees is compiled, and a server or a new node has none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from meshd.api.base import Key
from meshd.api.gateway.types import gateway_name
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload


def trial_clients(snapshot: Snapshot, changed: Collection[Key]) -> Mapping[str, Workload]:
    """Return one client in each namespace of a changed object, and one for each changed Gateway.

    Gateways that a changed VirtualService names get one, too.
    """
    namespaces = {key.namespace for key in changed if key.namespace}
    gateways = {f"{key.namespace}/{key.name}" for key in changed if key.kind == "Gateway"}
    for routes in snapshot.virtual_services:
        if routes.key in changed:
            owner = routes.metadata.namespace
            gateways |= {gateway_name(name, owner) for name in routes.spec.gateways}
    clients = [*_in_namespaces(namespaces), *_at_gateways(snapshot, gateways)]
    return {one.uid: one for one in clients}


def _in_namespaces(namespaces: Collection[str]) -> Iterator[Workload]:
    for namespace in sorted(namespaces):
        yield _client(namespace, "client", {})


def _at_gateways(snapshot: Snapshot, names: Collection[str]) -> Iterator[Workload]:
    for index, found in enumerate(snapshot.gateways):
        owner = found.metadata.namespace
        if f"{owner}/{found.metadata.name}" in names:
            yield _client(owner, f"gateway-{index}", dict(found.spec.selector))


def _client(namespace: str, name: str, labels: dict[str, str]) -> Workload:
    # No registered workload has a uid with a slash.
    uid = f"trial/{namespace}.{name}"
    return Workload(uid=uid, name=name, namespace=namespace, netns="/trial", labels=labels)
