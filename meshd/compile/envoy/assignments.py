"""Prints assignments: the endpoints of clusters."""

from __future__ import annotations

from typing import Final

from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import struct_pb2

from meshd.api.locality import parts
from meshd.compile.envoy.weights import summable
from meshd.compile.plan.upstreams import Assignment, Group, Place

TLS_MATCH: Final = "envoy.transport_socket_match"
"""Metadata by which Envoy chooses a transport socket for each endpoint."""
MUTUAL_TLS: Final = struct_pb2.Struct()
MUTUAL_TLS.update({"tlsMode": "istio"})
"""Its value for endpoints that speak mutual TLS of the mesh."""


def load_assignment(assignment: Assignment) -> endpoint_pb2.ClusterLoadAssignment:
    made = endpoint_pb2.ClusterLoadAssignment(cluster_name=assignment.name)
    for group in assignment.groups:
        put = made.endpoints.add()
        if assignment.order:
            _put_distance(put, group)
        weights = summable([place.weight for place in group.places])
        for place, weight in zip(group.places, weights, strict=True):
            _put_place(put.lb_endpoints.add(), place, weight)
    return made


def _put_distance(made: endpoint_components_pb2.LocalityLbEndpoints, group: Group) -> None:
    made.locality.SetInParent()
    made.locality.region, made.locality.zone, made.locality.sub_zone = parts(group.locality)
    made.priority = group.priority
    if group.weight:
        made.load_balancing_weight.value = group.weight


def _put_place(made: endpoint_components_pb2.LbEndpoint, place: Place, weight: int) -> None:
    # Written in place: a message that is made apart is copied by way of its bytes.
    address = made.endpoint.address.socket_address
    address.address = place.address
    address.port_value = place.port
    made.load_balancing_weight.value = weight
    if place.mutual_tls:
        made.metadata.filter_metadata[TLS_MATCH].CopyFrom(MUTUAL_TLS)
