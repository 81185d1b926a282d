"""Who serves which cluster."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.networking import DestinationRuleSpec, Subset
from meshd.api.protocol import Protocol
from meshd.compile.envoy.assignments import TLS_MATCH, load_assignment
from meshd.compile.plan.upstreams import Assignment, Eds
from meshd.compile.upstream.assignments import service_assignments
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.upstreams import service_upstreams
from meshd.model.service import Endpoint, Port, ServiceRecord
from meshd.model.snapshot import MeshOptions

HOST = "a.default.svc.cluster.local"
RULES = RuleSet(
    spec=DestinationRuleSpec(
        host=HOST,
        subsets=(
            Subset(name="v1", labels={"version": "v1"}),
            Subset(name="v2", labels={"version": "v2"}),
            Subset(name="all"),
        ),
    )
)
ENDPOINTS = st.lists(
    st.builds(
        Endpoint,
        address=st.integers(1, 250).map(lambda number: f"198.18.0.{number}"),
        port=st.integers(1, 65535),
        service_port=st.sampled_from([80, 81]),
        labels=st.sampled_from([{}, {"version": "v1"}, {"version": "v2", "app": "a"}]),
        weight=st.integers(0, 5),
        mutual_tls=st.booleans(),
    ),
    max_size=8,
)


def service(endpoints: list[Endpoint]) -> ServiceRecord:
    return ServiceRecord(
        host=HOST,
        namespace="default",
        ports=(
            Port(80, "http", Protocol.HTTP),
            Port(81, "tcp", Protocol.TCP),
            Port(53, "dns", Protocol.UDP),
        ),
        endpoints=tuple(endpoints),
    )


def places(assignment: Assignment) -> list[tuple[str, int]]:
    return [(place.address, place.port) for group in assignment.groups for place in group.places]


@given(ENDPOINTS)
def test_subset_has_the_endpoints_with_its_labels(endpoints: list[Endpoint]) -> None:
    found = service_assignments(service(endpoints), RULES)

    for port in (80, 81):
        on_port = [known for known in endpoints if known.service_port == port]
        expected = {
            "": on_port,
            "all": on_port,
            "v1": [known for known in on_port if known.labels.get("version") == "v1"],
            "v2": [known for known in on_port if known.labels.get("version") == "v2"],
        }
        for subset, wanted in expected.items():
            assert places(found[f"outbound|{port}|{subset}|{HOST}"]) == [
                (known.address, known.port) for known in wanted
            ]


@given(ENDPOINTS)
def test_each_cluster_that_asks_for_endpoints_gets_an_answer(endpoints: list[Endpoint]) -> None:
    record = service(endpoints)
    for rules in (RuleSet(), RULES, RuleSet("client/rule", RULES.spec)):
        asked = {
            upstream.discovery.name
            for upstream in service_upstreams(record, rules, MeshOptions())
            if isinstance(upstream.discovery, Eds)
        }
        assert asked == set(service_assignments(record, rules))


@given(ENDPOINTS)
def test_only_members_of_the_mesh_are_marked_for_mutual_tls(endpoints: list[Endpoint]) -> None:
    found = service_assignments(service(endpoints), RuleSet())
    marked = [
        TLS_MATCH in place.metadata.filter_metadata
        for port in (80, 81)
        for group in load_assignment(found[f"outbound|{port}||{HOST}"]).endpoints
        for place in group.lb_endpoints
    ]

    assert marked == [
        known.mutual_tls for port in (80, 81) for known in endpoints if known.service_port == port
    ]


@given(ENDPOINTS)
def test_an_endpoint_that_is_not_ready_is_sent_nothing(endpoints: list[Endpoint]) -> None:
    resting = [msgspec.structs.replace(endpoint, ready=False) for endpoint in endpoints]
    mixed, ready = (
        service_assignments(service(some), RULES) for some in ([*resting, *endpoints], endpoints)
    )

    assert [*map(load_assignment, mixed.values())] == [*map(load_assignment, ready.values())]
    for name, assignment in service_assignments(service(resting), RULES).items():
        assert not assignment.groups
        assert [(place.address, place.port) for place in assignment.resting] == places(ready[name])
