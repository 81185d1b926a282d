"""Which endpoints are reached by tunnels, and what Envoy is told of them."""

from __future__ import annotations

import msgspec
import pytest

from meshd.api.protocol import Protocol
from meshd.api.read import read_objects
from meshd.compile import messages
from meshd.compile.envoy.assignments import load_assignment
from meshd.compile.envoy.clusters import cluster
from meshd.compile.names import HBONE
from meshd.compile.plan.upstreams import Eds
from meshd.compile.upstream.assignments import service_assignments
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.hbone import tunnels
from meshd.compile.upstream.upstreams import service_upstreams
from meshd.model.hbone import leads_to
from meshd.model.interception import UNTUNNELED_PORTS
from meshd.model.service import Endpoint, Port, Resolution, ServiceRecord
from meshd.model.short_way import Inside
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import HostService, Workload
from meshd.registry.selection import Backend, Source

_ON = MeshOptions(hbone=True)
_PLACE = Endpoint(
    address="198.18.0.2",
    port=9000,
    service_port=90,
    namespace="back",
    service_account="db",
    workload="far/back.db",
    mutual_tls=True,
    hbone=True,
)
_URI = "spiffe://cluster.local/ns/back/sa/db"


def service(*places: Endpoint, protocol: Protocol = Protocol.TCP) -> ServiceRecord:
    return ServiceRecord(
        host="db.back.svc.cluster.local",
        namespace="back",
        ports=(Port(90, "db", protocol),),
        endpoints=places or (_PLACE,),
        resolution=Resolution.STATIC,
        tunnels=True,
    )


def rules(policy: str) -> RuleSet:
    text = f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: db, namespace: objects}}
spec: {{host: db, trafficPolicy: {{{policy}}}}}
"""
    (read,) = read_objects(text, "test.yaml")
    return RuleSet(spec=read.object.spec)  # pyright: ignore[reportAttributeAccessIssue]


def tunneled(
    found: ServiceRecord, ruled: RuleSet | None = None, options: MeshOptions = _ON
) -> list[bool]:
    """Of each endpoint; the cluster and the assignment agree on the assignment's name."""
    ruled = ruled or RuleSet()
    (made,) = service_assignments(found, ruled, options).values()
    (upstream,) = service_upstreams(found, ruled, options)
    assert isinstance(upstream.discovery, Eds)
    assert upstream.discovery.name == made.name
    assert upstream.tunneled == made.name.endswith(f";{HBONE}")
    places = [bool(place.tunnel) for group in made.groups for place in group.places]
    assert upstream.tunneled or not any(places)
    return places


def test_an_endpoint_that_says_so_is_reached_by_a_tunnel_and_others_are_not() -> None:
    others = [
        msgspec.structs.replace(_PLACE, hbone=False),
        msgspec.structs.replace(_PLACE, mutual_tls=False),
        msgspec.structs.replace(_PLACE, service_account=""),
        *(msgspec.structs.replace(_PLACE, port=port) for port in sorted(UNTUNNELED_PORTS)),
    ]
    assert tunneled(service(_PLACE, *others)) == [True, *([False] * len(others))]
    assert tunneled(service(), options=MeshOptions()) == [False]


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.TLS, Protocol.HTTPS])
def test_a_service_has_to_say_that_tunnels_suit_it(protocol: Protocol) -> None:
    said = service(protocol=protocol)
    assert tunneled(said) == [True]
    assert tunneled(msgspec.structs.replace(said, tunnels=False)) == [False]


@pytest.mark.parametrize(
    "protocol", [Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC, Protocol.SNIFFED]
)
def test_connections_that_may_be_http_are_not_tunneled(protocol: Protocol) -> None:
    assert tunneled(service(protocol=protocol)) == [False]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("tls: {mode: ISTIO_MUTUAL}", True),
        ("tls: {mode: DISABLE}", False),
        ("tls: {mode: ISTIO_MUTUAL, subjectAltNames: [spiffe://x/ns/y/sa/z]}", False),
        ("proxyProtocol: {version: V1}", False),
        ("connectionPool: {tcp: {maxConnections: 3}}", True),
    ],
)
def test_what_a_rule_asks_of_tls_keeps_connections_from_tunnels(
    policy: str, expected: bool
) -> None:
    assert tunneled(service(), rules(policy)) == [expected]


def test_envoy_is_told_where_a_tunnel_ends_and_who_must_be_there() -> None:
    (made,) = service_assignments(service(), RuleSet(), _ON).values()
    (locality,) = load_assignment(made).endpoints
    (place,) = locality.lb_endpoints
    known = place.metadata.filter_metadata
    assert dict(known["tunnel"]) == {
        "address": "198.18.0.2:15008",
        "destination": "198.18.0.2:9000",
        "identity": _URI,
    }
    assert place.endpoint.address.envoy_internal_address.server_listener_name == HBONE


def test_an_address_of_ipv6_is_written_in_brackets() -> None:
    place = msgspec.structs.replace(_PLACE, address="fd00:198::2")
    (made,) = service_assignments(service(place), RuleSet(), _ON).values()
    tunnel = load_assignment(made).endpoints[0].lb_endpoints[0].metadata.filter_metadata["tunnel"]
    assert tunnel["address"] == "[fd00:198::2]:15008"
    assert tunnel["destination"] == "[fd00:198::2]:9000"


def test_the_socket_to_tunnels_comes_before_those_to_endpoints_themselves() -> None:
    (upstream,) = service_upstreams(service(), RuleSet(), _ON)
    names = [match.name for match in cluster(upstream).transport_socket_matches]
    assert names == ["tlsMode-hbone", "tlsMode-istio", "tlsMode-disabled"]
    both = msgspec.structs.replace(service(), near=True)
    (upstream,) = service_upstreams(both, RuleSet(), _ON)
    names = [match.name for match in cluster(upstream).transport_socket_matches]
    assert names[:2] == ["tlsMode-local", "tlsMode-hbone"]


def test_a_detour_leads_around_all_internal_listeners() -> None:
    inside = msgspec.structs.replace(
        _PLACE, hbone=False, inside=Inside("/pins/db", _URI), address="198.18.0.1"
    )
    both = msgspec.structs.replace(service(_PLACE, inside), near=True)
    (printed,) = messages.service_assignments(both, RuleSet(), _ON)
    assert printed.listeners == ("local", HBONE)
    plain = printed.kind.FromString(printed.directly)
    assert "internal" not in str(plain)


def test_the_cluster_of_tunnels_expects_the_mesh_and_keeps_clients_apart() -> None:
    (upstream,) = tunnels(_ON)
    made = cluster(upstream)
    assert "spiffe://cluster.local/ns/" in str(made.transport_socket)
    assert made.upstream_bind_config.HasField("local_address_selector")
    assert made.original_dst_lb_config.metadata_key.key == "tunnel"


@pytest.mark.parametrize("port", [0, -1, 65536, 15001, 15006, 15008, 15021])
def test_no_tunnel_leads_to_a_port_of_a_proxy(port: int) -> None:
    assert not leads_to(port)


def test_only_other_nodes_tell_of_tunnels() -> None:
    one = Workload(
        uid="db", name="db", namespace="back", netns="", addresses=("198.18.0.2",),
        protocols=("quic", "hbone"),
    )  # fmt: skip
    host = HostService(cgroup="x", outbound_port=15101, inbound_port=15102)
    unknown = msgspec.structs.replace(one, protocols=("HBONE", "hbone2"))
    of_host = msgspec.structs.replace(one, host=host)
    elsewhere = Source.ELSEWHERE
    assert Backend.of_workload(one, enrolled=True, source=elsewhere).endpoint(9000, 90).hbone
    for found, source, enrolled in (
        (one, Source.HERE, True),
        (one, elsewhere, False),
        (unknown, elsewhere, True),
        (of_host, elsewhere, True),
    ):
        backend = Backend.of_workload(found, enrolled=enrolled, source=source)
        assert not backend.endpoint(9000, 90).hbone
