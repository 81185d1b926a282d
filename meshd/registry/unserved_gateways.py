"""Gateways that nobody serves, because ``mesh.gateway_selection`` keeps others from it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from meshd.api.gateway.types import GATEWAY_LABELS, Gateway, GatewaySelection, fits, remedy
from meshd.model.workload import Workload


def unserved(
    gateways: Sequence[Gateway], workloads: Collection[Workload], selection: GatewaySelection
) -> Iterator[str]:
    """Yield a line for each Gateway that would be served in other namespaces only, and may not
    be."""
    if selection == "any-namespace" or not gateways:
        return
    by_namespace: dict[str, list[Workload]] = defaultdict(list)
    for one in workloads:
        by_namespace[one.namespace].append(one)
    declared = [one for one in workloads if not GATEWAY_LABELS.isdisjoint(one.labels)]
    for found in gateways:
        own, selector = found.metadata.namespace, found.spec.selector
        if any(fits(selector, one.labels) for one in by_namespace.get(own, ())):
            continue
        if any(found.selects(one.labels, one.namespace, selection) for one in declared):
            continue
        others = sorted(
            name
            for name, listed in by_namespace.items()
            if any(fits(selector, one.labels) for one in listed)
        )
        if others:
            yield (
                f"{found.key} is served by nobody: workloads with its labels are in {others[0]},"
                f" and mesh.gateway_selection is {selection}; {remedy(selection)}"
            )
