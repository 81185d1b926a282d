from __future__ import annotations

import msgspec
import pytest
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import any_pb2

from meshd.api.protocol import Protocol
from meshd.api.read import read_objects
from meshd.compile import messages
from meshd.compile.compiled import Kind
from meshd.compile.envoy.assignments import load_assignment
from meshd.compile.envoy.clusters import cluster
from meshd.compile.names import LOCAL
from meshd.compile.upstream.assignments import service_assignments
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.traffic_policy import is_different_at_gateways
from meshd.compile.upstream.upstreams import service_upstreams
from meshd.model.pool import Pool
from meshd.model.service import Endpoint, Port, Resolution, ServiceRecord
from meshd.model.short_way import Inside
from meshd.model.snapshot import MeshOptions
from meshd.node.packing import Packer
from meshd.xds.resources import ENDPOINTS

_ON = MeshOptions()
_INSIDE = Inside("/pins/web", "spiffe://cluster.local/ns/default/sa/web")
_HERE = Endpoint(
    address="198.18.0.1",
    port=8080,
    service_port=80,
    namespace="default",
    service_account="web",
    workload="default.web",
    mutual_tls=True,
    inside=_INSIDE,
)
_THERE = Endpoint(
    address="198.18.0.2",
    port=8080,
    service_port=80,
    namespace="default",
    service_account="web",
    mutual_tls=True,
)
_SERVICE = ServiceRecord(
    host="web.default.svc.cluster.local",
    namespace="default",
    ports=(Port(80, "http", Protocol.HTTP),),
    endpoints=(_HERE, _THERE),
    resolution=Resolution.STATIC,
    near=True,
)
_FAR = msgspec.structs.replace(_SERVICE, near=False)


def rules(policy: str = "") -> RuleSet:
    if not policy:
        return RuleSet()
    text = f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: default}}
spec: {{host: web, trafficPolicy: {{{policy}}}}}
"""
    (read,) = read_objects(text, "test.yaml")
    return RuleSet("r", getattr(read.object, "spec", None))


def made(found: RuleSet, service: ServiceRecord = _SERVICE) -> tuple[str, list[str], list[str]]:
    """Name and kinds of sockets of the cluster, and the kinds of its endpoints' addresses."""
    (upstream,) = service_upstreams(service, found, _ON)
    (assigned,) = service_assignments(service, found, _ON).values()
    printed, places = cluster(upstream), load_assignment(assigned)
    assert printed.eds_cluster_config.service_name == places.cluster_name
    return (
        places.cluster_name,
        [match.name for match in printed.transport_socket_matches],
        [
            str(place.endpoint.address.WhichOneof("address"))
            for place in places.endpoints[0].lb_endpoints
        ],
    )


_NAME = "outbound|80||web.default.svc.cluster.local"


def test_endpoints_of_this_node_stand_among_the_others() -> None:
    assert made(rules()) == (
        f"{_NAME};local;http1",
        ["tlsMode-local", "tlsMode-istio", "tlsMode-disabled"],
        ["envoy_internal_address", "socket_address"],
    )


def test_a_rule_for_mutual_tls_of_the_mesh_changes_nothing_of_that() -> None:
    assert made(rules("tls: {mode: ISTIO_MUTUAL}")) == (
        f"{_NAME};local;http1",
        ["tlsMode-local", "other"],
        ["envoy_internal_address", "socket_address"],
    )


def test_without_such_endpoints_all_goes_over_the_network() -> None:
    assert made(rules(), _FAR) == (
        _NAME,
        ["tlsMode-istio", "tlsMode-disabled"],
        ["socket_address", "socket_address"],
    )


@pytest.mark.parametrize(
    "policy",
    [
        "tls: {mode: DISABLE}",
        "tls: {mode: SIMPLE}",
        "tls: {mode: ISTIO_MUTUAL, subjectAltNames: [other]}",
        "proxyProtocol: {version: V2}",
    ],
)
def test_a_rule_that_the_short_way_cannot_keep_has_all_go_over_the_network(policy: str) -> None:
    name, sockets, addresses = made(rules(policy))
    assert (name, set(addresses)) == (_NAME, {"socket_address"})
    assert "tlsMode-local" not in sockets


@pytest.mark.parametrize(
    ("protocol", "policy", "sent"),
    [
        (Protocol.HTTP, "", "http1"),
        (Protocol.HTTP2, "", "http2"),
        (Protocol.GRPC, "", "http2"),
        (Protocol.HTTP, "connectionPool: {http: {h2UpgradePolicy: UPGRADE}}", "http2"),
        (Protocol.HTTP, "connectionPool: {http: {useClientProtocol: true}}", ""),
        (Protocol.SNIFFED, "", ""),
        (Protocol.TCP, "", ""),
        (Protocol.TLS, "", ""),
    ],
)
@pytest.mark.parametrize("at_gateway", [False, True])
def test_the_caller_is_written_where_the_http_version_is_known_and_no_other_proxy_writes_it(
    protocol: Protocol, policy: str, sent: str, at_gateway: bool
) -> None:
    found = msgspec.structs.replace(rules(policy), at_gateway=at_gateway)
    service = msgspec.structs.replace(_SERVICE, ports=(Port(80, "port", protocol),))
    (upstream,) = service_upstreams(service, found, _ON)
    (assigned,) = service_assignments(service, found, _ON).values()
    expected = "" if at_gateway else sent
    assert assigned.requests == expected
    printed = cluster(upstream)
    assert printed.eds_cluster_config.service_name == assigned.name
    (options,) = printed.typed_extension_protocol_options.values() or (any_pb2.Any(),)
    written = http_protocol_options_pb2.HttpProtocolOptions.FromString(options.value)
    assert [one.name.rpartition(".")[2] for one in written.http_filters] == (
        ["caller", "upstream_codec"] if expected else []
    )


def test_gateways_and_copies_have_the_upstreams_of_others() -> None:
    """Who calls is written for those alone whose listener says that it names them."""
    assert not is_different_at_gateways(_SERVICE, rules())


def test_a_connection_is_told_where_to_go_and_to_whom() -> None:
    (assigned,) = service_assignments(_SERVICE, rules(), _ON).values()
    known = load_assignment(assigned).endpoints[0].lb_endpoints[0].metadata.filter_metadata
    assert {name: dict(value) for name, value in known.items()} == {
        "envoy.transport_socket_match": {"tlsMode": "local"},
        "envoy.filters.listener.original_dst": {"local": "198.18.0.1:8080"},
        "meshd": {
            "netns": "/pins/web",
            "identity": _INSIDE.identity,
            "workload": "default.web",
            "requests": "http1",
        },
    }


def test_requests_for_a_workload_that_judges_are_not_told_to_go_straight() -> None:
    judging = msgspec.structs.replace(_HERE, inside=msgspec.structs.replace(_INSIDE, judged=True))
    service = msgspec.structs.replace(_SERVICE, endpoints=(judging, _HERE))
    (assigned,) = service_assignments(service, rules(), _ON).values()
    told = [
        "requests" in place.metadata.filter_metadata["meshd"]
        for place in load_assignment(assigned).endpoints[0].lb_endpoints
    ]
    assert told == [False, True]


@pytest.mark.parametrize(
    "successor",
    [
        msgspec.structs.replace(_HERE, workload="default.new"),
        msgspec.structs.replace(_HERE, inside=Inside("/pins/web", _INSIDE.identity + "2")),
        msgspec.structs.replace(_HERE, inside=msgspec.structs.replace(_INSIDE, judged=True)),
    ],
    ids=["workload", "account", "policies"],
)
def test_a_successor_at_a_workloads_address_is_another_endpoint(successor: Endpoint) -> None:
    """Envoy leaves endpoints of the same name the connections that they have."""
    names: set[str] = set()
    for endpoint in (_HERE, successor):
        service = msgspec.structs.replace(_SERVICE, endpoints=(endpoint,))
        (assigned,) = service_assignments(service, rules(), _ON).values()
        (place,) = load_assignment(assigned).endpoints[0].lb_endpoints
        names.add(place.endpoint.address.envoy_internal_address.endpoint_id)
    assert len(names) == 2


def test_beside_endpoints_with_the_short_way_are_the_same_over_the_network() -> None:
    (printed,) = messages.service_assignments(_SERVICE, rules(), _ON)
    (assignment,) = service_assignments(_FAR, rules(), _ON).values()
    plain = load_assignment(assignment)
    plain.cluster_name = printed.name
    assert printed.directly == plain.SerializeToString(deterministic=True)
    (without,) = messages.service_assignments(_FAR, rules(), _ON)
    assert without.directly == b""


def test_proxies_without_the_listener_of_the_short_way_are_told_of_the_network() -> None:
    (printed,) = messages.service_assignments(_SERVICE, rules(), _ON)
    packed = Packer().pack({Pool.TRAFFIC: {Kind.ENDPOINT: {printed.name: printed}}})
    (resource,) = packed[Pool.TRAFFIC].of_type(ENDPOINTS).values()
    assert resource.detour
    assert resource.detour.listeners == (LOCAL,)
    assert resource.detour.resource.body == printed.directly
    assert resource.detour.resource.version != resource.version
