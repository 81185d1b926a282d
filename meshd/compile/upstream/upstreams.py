"""Upstreams: one for each port and subset of a service, passthrough, and black hole.

They are shared by all clients for which the same DestinationRules hold, whatever their identity.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from meshd.api.destination_rule.types import LocalityLbSetting
from meshd.api.protocol import Protocol
from meshd.compile.names import (
    BLACK_HOLE_CLUSTER,
    KUBERNETES,
    PASSTHROUGH_CLUSTER,
    OutboundCluster,
    missing_secret,
)
from meshd.compile.origins import of_port
from meshd.compile.plan.upstreams import (
    Discovery,
    Dns,
    DynamicDns,
    Eds,
    Fixed,
    Http,
    HttpVersion,
    OriginalDestination,
    Settings,
    Upstream,
)
from meshd.compile.upstream import hbone, short_way
from meshd.compile.upstream.assignments import assignment, chosen_endpoints
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.settings import http_of_upstream, is_verified, limits, settings
from meshd.compile.upstream.tls_plan import tls_plan
from meshd.compile.upstream.traffic_policy import (
    Policy,
    connects_to_original_destination,
    effective_policy,
    policy_origins,
    upstream_protocol,
)
from meshd.model.interception import PROXY_MARK
from meshd.model.service import Endpoint, Port, Resolution, ServiceRecord
from meshd.model.snapshot import MeshOptions


def service_upstreams(
    service: ServiceRecord,
    rules: RuleSet,
    options: MeshOptions,
    served: Collection[str] | None = None,
) -> tuple[Upstream, ...]:
    """Return all upstreams of one service for the clients for which these rules hold; none if it is
    closed to them.

    ``served``: names of the Kubernetes Secrets that can be served; None: each one can.
    """
    if rules.is_closed:
        return ()
    subsets = dict.fromkeys(("", *(subset.name for subset in rules.subsets)))
    found = tuple(
        _upstream(service, port, subset, rules, options)
        for port in service.ports
        if port.protocol is not Protocol.UDP
        for subset in subsets
    )
    return found if served is None else tuple(_with_usable(upstream, served) for upstream in found)


def _upstream(
    service: ServiceRecord, port: Port, subset: str, rules: RuleSet, options: MeshOptions
) -> Upstream:
    name = OutboundCluster(port.number, service.host, subset, rules.variant, service.apart)
    policy = effective_policy(rules, port.number, subset)
    protocol = upstream_protocol(port.protocol, policy)
    direct = not rules.at_gateway and connects_to_original_destination(service, port, policy)
    dynamic = service.resolution is Resolution.DYNAMIC_DNS
    balanced = not (direct or dynamic)
    nearness = policy.nearness(service, rules.client) if balanced else None
    inside = service.near and not short_way.obstacle(policy)
    tunneled = not hbone.obstacle(service, port.protocol, policy, options)
    requests = short_way.requests(protocol, policy, at_gateway=rules.at_gateway) if inside else ""
    if direct:
        discovery: Discovery = OriginalDestination()
    elif dynamic:
        discovery = DynamicDns(is_verified(policy))
    else:
        assigned = name.assigned(
            near=nearness is not None, inside=inside, tunneled=tunneled, requests=requests
        )
        discovery = _known_endpoints(name, service, rules, nearness, assigned)
    http = http_of_upstream(protocol, policy, service.host, as_asked=not rules.at_gateway)
    if requests and isinstance(discovery, Eds):
        http = msgspec.structs.replace(http or Http(HttpVersion.HTTP1), names_caller=True)
    tls = tls_plan(
        name,
        service,
        protocol,
        policy.tls,
        options.trust_domain,
        original_destination=direct,
        credential_namespace=rules.namespace,
    )
    return Upstream(
        name=name,
        discovery=discovery,
        settings=settings(policy, options, http, nearness, balanced=balanced),
        tls=tls,
        trust_domain=options.trust_domain,
        proxy_protocol=policy.proxy_protocol.version if policy.proxy_protocol else "",
        short_way=inside and isinstance(discovery, Eds),
        tunneled=tunneled and isinstance(discovery, Eds),
        origin=rules.origin_of(subset) if subset else of_port(service, port.number),
        set_at=policy_origins(rules, port.number, subset),
    )


def _known_endpoints(
    name: OutboundCluster,
    service: ServiceRecord,
    rules: RuleSet,
    nearness: LocalityLbSetting | None,
    assigned: str,
) -> Eds | Dns:
    """Return how endpoints are found, ``assigned`` where they come by themselves; a service of DNS
    without any is one itself."""
    if service.resolution not in {Resolution.DNS, Resolution.DNS_ROUND_ROBIN}:
        return Eds(assigned)
    places = chosen_endpoints(service, rules, name)
    if not service.endpoints and not service.host.startswith("*"):
        places = [Endpoint(address=service.host, port=name.port, service_port=name.port)]
    # With all addresses in one endpoint there is exactly one, or Envoy refuses the cluster.
    first_only = service.resolution is Resolution.DNS_ROUND_ROBIN and len(places) == 1
    ordered = None if first_only else nearness
    return Dns(assignment(str(name), places, ordered, rules.client), first_only)


def _with_usable(upstream: Upstream, served: Collection[str]) -> Upstream:
    """Return an upstream with names that nobody serves in the place of secrets that cannot be
    served."""
    certificate, authority = (
        missing_secret(name) if name.startswith(KUBERNETES) and name not in served else name
        for name in (upstream.tls.certificate, upstream.tls.authority)
    )
    if (certificate, authority) == (upstream.tls.certificate, upstream.tls.authority):
        return upstream
    tls = msgspec.structs.replace(upstream.tls, certificate=certificate, authority=authority)
    return msgspec.structs.replace(upstream, tls=tls)


def passthrough(options: MeshOptions) -> Upstream:
    """Return the upstream to the client's own destination."""
    return Upstream(
        PASSTHROUGH_CLUSTER,
        OriginalDestination(),
        Settings(
            connect_timeout=options.connect_timeout,
            limits=limits(Policy(), options),
            http=http_of_upstream(Protocol.SNIFFED, Policy(), PASSTHROUGH_CLUSTER),
            mark=PROXY_MARK,
        ),
    )


def refusing_passthrough(options: MeshOptions) -> Upstream:
    """Return an upstream to nowhere, in place of the one to the client's own destination."""
    return msgspec.structs.replace(black_hole(options), name=PASSTHROUGH_CLUSTER)


def black_hole(options: MeshOptions) -> Upstream:
    """Return the upstream to nowhere."""
    return Upstream(
        BLACK_HOLE_CLUSTER, Fixed(), Settings(connect_timeout=options.connect_timeout, limits=None)
    )
