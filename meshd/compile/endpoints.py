# pyright: reportAttributeAccessIssue=false
"""Who serves a cluster: load assignments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from meshd.compile.destination_rules import RuleSet
from meshd.compile.names import OutboundCluster
from meshd.compile.wellknown import socket_address
from meshd.model.service import Endpoint, Protocol, ServiceRecord

TLS_MATCH: Final = "envoy.transport_socket_match"
"""Metadata by which Envoy chooses a transport socket for each endpoint."""


def lb_endpoint(endpoint: Endpoint) -> Any:
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(
            address=socket_address(endpoint.address, endpoint.port)
        ),
        load_balancing_weight={"value": max(endpoint.weight, 1)},
        metadata=_MUTUAL_TLS if endpoint.mutual_tls else None,
    )


def _metadata(namespace: str, values: Mapping[str, str]) -> Any:
    metadata = base_pb2.Metadata()
    metadata.filter_metadata[namespace].update(values)
    return metadata


_MUTUAL_TLS: Final = _metadata(TLS_MATCH, {"tlsMode": "istio"})


def load_assignment(name: str, endpoints: Iterable[Any]) -> Any:
    """One group of ``LbEndpoint`` in the order given; none at all when there are no endpoints."""
    places = list(endpoints)
    groups = [endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=places)] if places else []
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=groups)


def has_labels(endpoint: Endpoint, labels: Mapping[str, str]) -> bool:
    return labels.items() <= endpoint.labels.items()


def service_assignments(service: ServiceRecord, rules: RuleSet) -> dict[str, Any]:
    """The load assignments of all clusters of a service under these rules, by their EDS name.

    Those without a subset are the same for every variant of the rules.
    """
    assignments: dict[str, Any] = {}
    for port in service.ports:
        if port.protocol is Protocol.UDP:
            continue
        places = [
            (endpoint, lb_endpoint(endpoint))
            for endpoint in service.endpoints
            if endpoint.service_port == port.number and endpoint.ready
        ]
        name = OutboundCluster(port.number, service.host, "", rules.variant).endpoints
        assignments[name] = load_assignment(name, (place for _, place in places))
        for subset in rules.spec.subsets if rules.spec else ():
            name = OutboundCluster(port.number, service.host, subset.name, rules.variant).endpoints
            assignments[name] = load_assignment(
                name, (place for known, place in places if has_labels(known, subset.labels))
            )
    return assignments
