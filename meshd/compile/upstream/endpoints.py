"""Load assignments: the endpoints of clusters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from meshd.api.destination_rule.types import LocalityLbSetting
from meshd.api.locality import parts
from meshd.api.protocol import Protocol
from meshd.api.traffic import Subset
from meshd.compile.envoy.wellknown import socket_address
from meshd.compile.names import OutboundCluster
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.nearness import Client, Group, by_nearness
from meshd.compile.upstream.traffic_policy import effective_policy
from meshd.model.service import Endpoint, ServiceRecord

TLS_MATCH: Final = "envoy.transport_socket_match"
"""Metadata by which Envoy chooses a transport socket for each endpoint."""


def lb_endpoint(endpoint: Endpoint) -> endpoint_components_pb2.LbEndpoint:
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(
            address=socket_address(endpoint.address, endpoint.port)
        ),
        load_balancing_weight={"value": max(endpoint.weight, 1)},
        metadata=_MUTUAL_TLS if endpoint.mutual_tls else None,
    )


def _metadata(namespace: str, values: Mapping[str, str]) -> base_pb2.Metadata:
    metadata = base_pb2.Metadata()
    metadata.filter_metadata[namespace].update(values)
    return metadata


_MUTUAL_TLS: Final = _metadata(TLS_MATCH, {"tlsMode": "istio"})


def load_assignment(
    name: str, endpoints: Iterable[endpoint_components_pb2.LbEndpoint]
) -> endpoint_pb2.ClusterLoadAssignment:
    """Return one group of ``LbEndpoint`` in the order given; none without endpoints."""
    places = list(endpoints)
    groups = [endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=places)] if places else []
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=groups)


def near_assignment(
    name: str, endpoints: Iterable[Endpoint], nearness: LocalityLbSetting, client: Client
) -> endpoint_pb2.ClusterLoadAssignment:
    """Return endpoints in groups, by their distance from a client."""
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[_near_group(group) for group in by_nearness(endpoints, nearness, client)],
    )


def _near_group(group: Group) -> endpoint_components_pb2.LocalityLbEndpoints:
    region, zone, subzone = parts(group.locality)
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(region=region, zone=zone, sub_zone=subzone),
        lb_endpoints=[lb_endpoint(place) for place in group.endpoints],
        priority=group.priority,
        load_balancing_weight={"value": group.weight} if group.weight else None,
    )


def has_labels(endpoint: Endpoint, labels: Mapping[str, str]) -> bool:
    return labels.items() <= endpoint.labels.items()


def service_assignments(
    service: ServiceRecord, rules: RuleSet
) -> dict[str, endpoint_pb2.ClusterLoadAssignment]:
    """Return the load assignments of all clusters of a service under these rules, by EDS name.

    Those without a subset are the same for every variant of the rules, unless they are ordered for
    its clients.
    """
    assignments: dict[str, endpoint_pb2.ClusterLoadAssignment] = {}
    by_port = service.endpoints_by_port
    for port in service.ports:
        if port.protocol is Protocol.UDP:
            continue
        places = [
            (endpoint, lb_endpoint(endpoint))
            for endpoint in by_port.get(port.number, ())
            if endpoint.ready
        ]
        for subset in (Subset(name=""), *(rules.spec.subsets if rules.spec else ())):
            cluster = OutboundCluster(
                port.number, service.host, subset.name, rules.variant, service.apart
            )
            chosen = [one for one in places if has_labels(one[0], subset.labels)]
            if rules.client and (nearness := _nearness(service, rules, cluster)):
                name = cluster.near_endpoints
                found = (endpoint for endpoint, _ in chosen)
                assignments[name] = near_assignment(name, found, nearness, rules.client)
            else:
                name = cluster.endpoints
                assignments[name] = load_assignment(name, (place for _, place in chosen))
    return assignments


def _nearness(
    service: ServiceRecord, rules: RuleSet, cluster: OutboundCluster
) -> LocalityLbSetting | None:
    policy = effective_policy(rules, cluster.port, cluster.subset)
    return policy.nearness(service, rules.client)
