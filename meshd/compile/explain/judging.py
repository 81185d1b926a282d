"""Judges what a client sends by the AuthorizationPolicies about where it arrives. Pure."""

from __future__ import annotations

from meshd.compile.explain.authorization import Facts, Verdict, facts_of, judge
from meshd.compile.plan.tls import TlsMode
from meshd.compile.policy.authorization import authorization, by_namespace, of_connections
from meshd.matching.request import Request
from meshd.model.service import Endpoint
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload


def is_certified(tls: TlsMode, place: Endpoint) -> bool:
    """Return whether an endpoint is shown the client's certificate."""
    return tls is TlsMode.MESH or (tls is TlsMode.AUTO and place.mutual_tls)


def arriving(source: Workload, place: Endpoint, peer: str, server_name: str) -> Facts:
    """Return what an endpoint knows of a connection; ``peer``: see ``Facts``."""
    return Facts(
        peer=peer,
        client=next(iter(source.addresses), ""),
        server=place.address,
        port=place.port,
        server_name=server_name,
    )


def judged(
    snapshot: Snapshot, place: Workload | Endpoint, facts: Facts, request: Request | None
) -> Verdict:
    """Return what becomes of a request at a workload; None: of a connection that is not HTTP."""
    policies = by_namespace(snapshot.authorization_policies)
    rules = authorization(policies, place, snapshot.options)
    if request is not None:
        return judge(rules, facts_of(facts, request))
    return judge(rules and of_connections(rules), facts)
