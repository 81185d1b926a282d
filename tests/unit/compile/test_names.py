"""Names that dashboards and logs show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.compile.names import (
    InboundCluster,
    OutboundCluster,
    client_routes,
    gateway_routes,
    parse_cluster,
)

PORTS = st.integers(1, 65535)
LABELS = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=1, max_size=5).map(".".join)


def test_clusters_are_named_as_in_istio() -> None:
    cluster = OutboundCluster(9080, "reviews.default.svc.cluster.local", "v1")

    assert str(cluster) == "outbound|9080|v1|reviews.default.svc.cluster.local"
    assert cluster.sni == "outbound_.9080_.v1_.reviews.default.svc.cluster.local"
    assert str(InboundCluster(9080)) == "inbound|9080||"


VARIANTS = st.sampled_from(["", "-", "client/rule,other"])


@given(PORTS, HOSTS, LABELS | st.just(""), VARIANTS, LABELS | st.just(""))
def test_cluster_is_read_back_from_its_name(
    port: int, host: str, subset: str, variant: str, apart: str
) -> None:
    cluster = OutboundCluster(port, host, subset, variant, apart)

    assert parse_cluster(str(cluster)) == cluster


@given(PORTS)
def test_inbound_cluster_is_read_back_from_its_name(port: int) -> None:
    assert parse_cluster(str(InboundCluster(port))) == InboundCluster(port)


@pytest.mark.parametrize(
    "name", ["BlackHoleCluster", "outbound|x||host", "outbound|80|host", "sideways|80||host", ""]
)
def test_other_names_are_no_clusters_of_a_service(name: str) -> None:
    assert parse_cluster(name) is None


def test_variants_share_endpoints_unless_a_rule_names_the_subset() -> None:
    whole = OutboundCluster(80, "a.b.svc.cluster.local", "", "client/rule")
    subset = OutboundCluster(80, "a.b.svc.cluster.local", "v1", "client/rule")

    assert whole.endpoints == "outbound|80||a.b.svc.cluster.local"
    assert subset.endpoints == str(subset)
    apart = OutboundCluster(80, "a.b", "", "client/rule", "two")
    assert apart.endpoints == str(OutboundCluster(80, "a.b", apart="two")) != "outbound|80||a.b"


def test_route_configurations_are_told_apart_by_port_scope_and_tls() -> None:
    names = {
        client_routes(80, "edge"),
        client_routes(81, "edge"),
        gateway_routes(80, "edge"),
        gateway_routes(443, "edge"),
        gateway_routes(443, "edge", "a"),
    }

    assert len(names) == 5
