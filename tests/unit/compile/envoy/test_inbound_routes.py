"""Who may say in ``x-forwarded-client-cert`` for whom it calls: gateways alone."""

from __future__ import annotations

from typing import Any

from meshd.api.base import ObjectMeta
from meshd.api.gateway.types import Gateway, GatewaySpec
from meshd.compile.envoy.inbound_routes import inbound_routes
from meshd.compile.names import InboundCluster
from meshd.compile.traffic.inbound_routes import certified_routes, plain_routes
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload
from meshd.registry.registry import build_snapshot

CLUSTER = InboundCluster(8080)
EDGE = Identity("cluster.local", "edge", "gate.way")


def routes_of(configuration: Any) -> list[Any]:
    """Those of methods that are not idempotent; each comes after its twin for those that are."""
    found = list(configuration.virtual_hosts[0].routes)
    assert [bool(route.match.headers) for route in found] == [True, False] * (len(found) // 2)
    return found[1::2]


def actions(route: Any) -> list[int]:
    return [option.append_action for option in route.request_headers_to_add]


def test_without_gateways_every_callers_claim_is_replaced() -> None:
    (only,) = routes_of(inbound_routes(certified_routes(CLUSTER, ())))
    assert actions(only) == [2]  # OVERWRITE_IF_EXISTS_OR_ADD


def test_a_gateway_is_told_by_its_whole_identity() -> None:
    gateway, other = routes_of(inbound_routes(certified_routes(CLUSTER, (EDGE.uri,))))
    (asked,) = gateway.match.filter_state
    assert asked.string_match.safe_regex.regex == r"spiffe://cluster\.local/ns/edge/sa/gate\.way"
    assert (actions(gateway), actions(other)) == ([0], [2])


def test_a_caller_that_is_named_already_is_not_named_again_as_a_gateway() -> None:
    made = certified_routes(CLUSTER, (EDGE.uri,), short_way=True)
    named, gateway, other = routes_of(inbound_routes(made))
    (asked,) = named.match.filter_state
    assert (asked.key, asked.string_match.prefix) == ("meshd.requests", "requests-")
    assert [actions(route) for route in (named, gateway, other)] == [[2], [0], [2]]


def test_nothing_is_written_of_callers_without_a_certificate() -> None:
    (only,) = routes_of(inbound_routes(plain_routes(CLUSTER)))
    assert actions(only) == []


def test_gateways_are_known_on_whichever_node_they_run() -> None:
    def workload(name: str, role: str, *, enrolled: bool = True) -> Workload:
        return Workload(
            uid=name,
            name=name,
            namespace="edge",
            netns="/run/netns/x",
            service_account=name,
            labels={"role": role, "istio": role},
            enrolled=enrolled,
        )

    gateway = Gateway(
        metadata=ObjectMeta(name="a", namespace="other"),
        spec=GatewaySpec(servers=(), selector={"role": "edge"}),
    )
    snapshot = build_snapshot(
        [gateway],
        [workload("here", "edge"), workload("out", "edge", enrolled=False), workload("no", "web")],
        MeshOptions(),
        {},
        elsewhere=[workload("there", "edge")],
    )
    assert snapshot.gateway_accounts == (("edge", "here"), ("edge", "there"))
