"""Who serves which cluster."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.protocol import Protocol
from meshd.api.traffic import DestinationRuleSpec, Subset
from meshd.compile.upstream.clusters import service_clusters
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.upstream.endpoints import service_assignments
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


def places(assignment: object) -> list[tuple[str, int]]:
    return [
        (
            place.endpoint.address.socket_address.address,
            place.endpoint.address.socket_address.port_value,
        )
        for group in getattr(assignment, "endpoints")  # noqa: B009 (the message is untyped)
        for place in group.lb_endpoints
    ]


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
            planned.cluster.eds_cluster_config.service_name
            for planned in service_clusters(record, rules, MeshOptions())
        }
        assert asked == set(service_assignments(record, rules))


@given(ENDPOINTS)
def test_only_members_of_the_mesh_are_marked_for_mutual_tls(endpoints: list[Endpoint]) -> None:
    found = service_assignments(service(endpoints), RuleSet())
    marked = [
        "envoy.transport_socket_match" in place.metadata.filter_metadata
        for port in (80, 81)
        for group in found[f"outbound|{port}||{HOST}"].endpoints
        for place in group.lb_endpoints
    ]

    assert marked == [
        known.mutual_tls for port in (80, 81) for known in endpoints if known.service_port == port
    ]


@given(ENDPOINTS)
def test_an_endpoint_that_is_not_ready_is_sent_nothing(endpoints: list[Endpoint]) -> None:
    resting = [msgspec.structs.replace(endpoint, ready=False) for endpoint in endpoints]
    assert service_assignments(service([*resting, *endpoints]), RULES) == service_assignments(
        service(endpoints), RULES
    )
    assert not any(
        assignment.endpoints for assignment in service_assignments(service(resting), RULES).values()
    )
