"""What clusters and routes depend on, and what they do not."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.networking import DestinationRuleSpec, LoadBalancerSettings, Subset, TrafficPolicy
from meshd.api.protocol import Protocol
from meshd.compile.http.routes import route_table
from meshd.compile.plan.routes import RouteTable
from meshd.compile.plan.upstreams import Upstream
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.shape import shape
from meshd.compile.upstream.upstreams import service_upstreams
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.service import Endpoint, Port, Resolution, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot

RULES = RuleSet(
    spec=DestinationRuleSpec(
        host="a",
        subsets=(
            Subset(name="v1", labels={"version": "v1"}),
            Subset(
                name="direct",
                traffic_policy=TrafficPolicy(
                    load_balancer=LoadBalancerSettings(simple="PASSTHROUGH")
                ),
            ),
        ),
    )
)
SERVICES = st.builds(
    ServiceRecord,
    host=st.just("a.default.svc.cluster.local"),
    namespace=st.just("default"),
    ports=st.just((Port(80, "http", Protocol.HTTP), Port(81, "tcp", Protocol.TCP))),
    resolution=st.sampled_from(Resolution),
    headless=st.booleans(),
    external=st.booleans(),
    endpoints=st.lists(
        st.builds(
            Endpoint,
            address=st.sampled_from(["198.18.0.1", "198.18.0.2"]),
            port=st.sampled_from([80, 8080]),
            service_port=st.sampled_from([80, 81]),
            labels=st.sampled_from([{}, {"version": "v1"}]),
            namespace=st.just("default"),
            service_account=st.sampled_from(["", "a", "b"]),
            mutual_tls=st.booleans(),
        ),
        max_size=4,
    ).map(tuple),
)


def upstreams(service: ServiceRecord) -> tuple[Upstream, ...]:
    return service_upstreams(service, RULES, MeshOptions())


def routes(service: ServiceRecord) -> RouteTable:
    view = View.of(MeshIndex.of(Snapshot(services={service.host: service})), Scope("default"))
    return route_table(view, 80)


@given(SERVICES)
def test_shape_has_the_clusters_and_routes_of_the_service(service: ServiceRecord) -> None:
    assert upstreams(shape(service)) == upstreams(service)
    assert routes(shape(service)) == routes(service)


@given(SERVICES)
def test_shape_does_not_depend_on_which_or_how_many_endpoints_an_account_has(
    service: ServiceRecord,
) -> None:
    static = msgspec.structs.replace(service, resolution=Resolution.STATIC)
    twice = msgspec.structs.replace(
        static,
        endpoints=tuple(
            msgspec.structs.replace(place, address="198.18.9.9", weight=7)
            for place in reversed(static.endpoints)
        )
        * 2,
    )

    assert shape(twice) == shape(static)
