"""Decides who takes the short way, and to whom, from what is known of the workloads. Pure.

Whatever is missing closes it: connections then go over the network, or nowhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from meshd.model.short_way import ShortWay, obstacle, own_address
from meshd.model.workload import Identity, Observation, Stage, Workload, shown


def open_to(
    served: Mapping[str, Workload],
    observations: Mapping[str, Observation],
    certified: Collection[str],
    trust_domain: str,
) -> ShortWay:
    """Return who takes the short way. ``served``: the workloads whose listeners are to be in the
    proxies, by uid; ``certified``: URIs of identities that have a valid certificate."""
    callers = {uri for one in served.values() if (uri := uri_of(one, trust_domain)) in certified}
    destinations = (
        uid
        for uid, one in served.items()
        if not closed(one, served, observations.get(uid), certified, trust_domain)
    )
    return ShortWay(tuple(sorted(callers)), tuple(sorted(destinations)))


def closed(
    workload: Workload,
    served: Mapping[str, Workload],
    seen: Observation | None,
    certified: Collection[str],
    trust_domain: str,
) -> str:
    """Return why a workload is not called by the short way; empty: it is.

    Endpoints are the same for all callers: one that the application could not be shown by its
    address closes the short way for all.
    """
    if problem := obstacle(workload):
        return problem
    if unseen := [shown(uid) for uid, one in sorted(served.items()) if not own_address(one)]:
        return f"{unseen[0]} of this node has no IPv4 address to be seen by"
    if seen is None or seen.stage is not Stage.CAPTURED or seen.unprotected:
        return "it is not captured"
    if uri_of(workload, trust_domain) not in certified:
        return "its identity has no valid certificate"
    return ""


def opened(avoiding: Collection[str], *, told: bool) -> str:
    """Return how far the short way to a workload is open; ``avoiding``: proxies by name that do not
    lead there yet; ``told``: proxies are told of it at all."""
    if not told:
        return "not yet in any proxy"
    return f"not yet in {', '.join(avoiding)}" if avoiding else "open"


def uri_of(workload: Workload, trust_domain: str) -> str:
    """Return a workload's identity as a SPIFFE URI."""
    return Identity(trust_domain, workload.namespace, workload.service_account).uri
