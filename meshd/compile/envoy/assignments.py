"""Prints assignments: the endpoints of clusters."""

from __future__ import annotations

from typing import Final

from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from google.protobuf import struct_pb2

from meshd.api.locality import parts
from meshd.compile.envoy.weights import summable
from meshd.compile.names import HBONE, LOCAL
from meshd.compile.plan.upstreams import Assignment, Group, Place
from meshd.model.hbone import Tunnel
from meshd.model.interception import HBONE_PORT
from meshd.model.short_way import Inside, Requests

TLS_MATCH: Final = "envoy.transport_socket_match"
"""Metadata by which Envoy chooses a transport socket for each endpoint."""
MUTUAL_TLS: Final = struct_pb2.Struct()
MUTUAL_TLS.update({"tlsMode": "istio"})
"""Its value for endpoints that speak mutual TLS of the mesh."""
SHORT_WAY: Final = struct_pb2.Struct()
SHORT_WAY.update({"tlsMode": LOCAL})
"""Its value for endpoints of this node that are reached by the short way."""
TUNNELED: Final = struct_pb2.Struct()
TUNNELED.update({"tlsMode": HBONE})
"""Its value for endpoints of other nodes that are reached by tunnels."""
ORIGINAL_DESTINATION: Final = "envoy.filters.listener.original_dst"
"""Metadata that tells an internal listener where a connection wants to go."""
INSIDE: Final = "meshd"
"""Metadata of an endpoint that is reached by the short way: its namespace, identity and uid, and
the version of HTTP in which requests come."""
TUNNEL: Final = "tunnel"
"""Metadata of an endpoint that is reached by a tunnel: where this ends, whose certificate must be
there, and where the connection goes from there."""


def load_assignment(assignment: Assignment) -> endpoint_pb2.ClusterLoadAssignment:
    made = endpoint_pb2.ClusterLoadAssignment(cluster_name=assignment.name)
    for group in assignment.groups:
        put = made.endpoints.add()
        if assignment.order:
            _put_distance(put, group)
        weights = summable([place.weight for place in group.places])
        for place, weight in zip(group.places, weights, strict=True):
            _put_place(put.lb_endpoints.add(), place, weight, assignment.requests)
    return made


def _put_distance(made: endpoint_components_pb2.LocalityLbEndpoints, group: Group) -> None:
    made.locality.SetInParent()
    made.locality.region, made.locality.zone, made.locality.sub_zone = parts(group.locality)
    made.priority = group.priority
    if group.weight:
        made.load_balancing_weight.value = group.weight


def _put_place(
    made: endpoint_components_pb2.LbEndpoint, place: Place, weight: int, requests: Requests
) -> None:
    # Written in place: a message that is made apart is copied by way of its bytes.
    made.load_balancing_weight.value = weight
    if place.inside is not None:
        _put_inside(made, place, place.inside, requests)
        return
    if place.tunnel is not None:
        _put_tunnel(made, place, place.tunnel)
        return
    address = made.endpoint.address.socket_address
    address.address = place.address
    address.port_value = place.port
    if place.mutual_tls:
        made.metadata.filter_metadata[TLS_MATCH].CopyFrom(MUTUAL_TLS)


def _put_inside(
    made: endpoint_components_pb2.LbEndpoint, place: Place, inside: Inside, requests: Requests
) -> None:
    """Write the internal listener of the short way, and what it is to know of this endpoint."""
    where = f"{place.address}:{place.port}"
    made.endpoint.address.envoy_internal_address.server_listener_name = LOCAL
    # Envoy takes endpoints of one name for the same one, and keeps the connections that it has.
    made.endpoint.address.envoy_internal_address.endpoint_id = (
        f"{where};{place.workload};{inside.identity}{';judged' if inside.judged else ''}"
    )
    known = made.metadata.filter_metadata
    known[TLS_MATCH].CopyFrom(SHORT_WAY)
    known[ORIGINAL_DESTINATION].update({"local": where})
    known[INSIDE].update(
        {"netns": inside.netns, "identity": inside.identity, "workload": place.workload}
    )
    if requests and not inside.judged:
        known[INSIDE].update({"requests": requests})


def _put_tunnel(made: endpoint_components_pb2.LbEndpoint, place: Place, tunnel: Tunnel) -> None:
    """Write the internal listener of tunnels, and what it is to know of this endpoint."""
    host = f"[{place.address}]" if ":" in place.address else place.address
    where = f"{host}:{place.port}"
    made.endpoint.address.envoy_internal_address.server_listener_name = HBONE
    made.endpoint.address.envoy_internal_address.endpoint_id = where
    known = made.metadata.filter_metadata
    known[TLS_MATCH].CopyFrom(TUNNELED)
    known[TUNNEL].update(
        {"address": f"{host}:{HBONE_PORT}", "identity": tunnel.identity, "destination": where}
    )
