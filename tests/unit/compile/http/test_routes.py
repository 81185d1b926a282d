"""What route configurations always are, and choices that the golden files do not show."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import decode_scalar
from meshd.api.destination_rule.types import ConsistentHash
from meshd.api.gateway.types import gateway_name
from meshd.api.networking import HTTPRetry, VirtualService
from meshd.api.protocol import Protocol
from meshd.compile.http.route_actions import retries, to_cluster
from meshd.compile.http.routes import http_ports, route_table
from meshd.compile.names import OutboundCluster
from meshd.compile.plan.routes import Forward, Route
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.service import Port, ServiceRecord
from meshd.model.snapshot import Snapshot

HOSTS = st.sampled_from(
    [
        "a.default.svc.cluster.local",
        "A.default.svc.cluster.local",
        "a.other.svc.cluster.local",
        "a",
        "a.default",
        "example.com",
        "*.example.com",
        "*.com",
        "*",
    ]
)
SERVICES = st.lists(
    st.builds(
        ServiceRecord,
        host=HOSTS,
        namespace=st.sampled_from(["default", "other"]),
        addresses=st.lists(st.sampled_from(["198.19.0.1", "198.19.0.2", "fd00:198::1"])).map(tuple),
        ports=st.lists(
            st.builds(
                Port, st.sampled_from([80, 81]), st.just("p"), st.sampled_from(list(Protocol))
            ),
            max_size=2,
        ).map(tuple),
        headless=st.booleans(),
    )
)


def virtual_service(name: str, hosts: list[str], http: list[Any], **spec: Any) -> VirtualService:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"hosts": hosts, "http": http, **spec},
        },
        VirtualService,
        dec_hook=decode_scalar,
    )


def to(subset: str) -> dict[str, Any]:
    return {"name": subset, "route": [{"destination": {"host": "a", "subset": subset}}]}


def view(*virtual_services: VirtualService, services: list[ServiceRecord] | None = None) -> View:
    port = Port(80, "http", Protocol.HTTP)
    if services is None:
        host = "a.default.svc.cluster.local"
        services = [ServiceRecord(host=host, namespace="default", ports=(port,))]
    snapshot = Snapshot(
        services={service.host: service for service in services},
        virtual_services=virtual_services,
    )
    return View.of(MeshIndex.of(snapshot), Scope("default"))


def route_names(found: View) -> list[str]:
    return [route.name for route in route_table(found, 80).hosts[0].routes]


@given(SERVICES, st.lists(HOSTS, max_size=4))
def test_no_domain_is_given_twice_and_one_is_for_all_others(
    services: list[ServiceRecord], routed: list[str]
) -> None:
    found = view(
        *(virtual_service(str(number), [host], [to("v1")]) for number, host in enumerate(routed)),
        services=services,
    )
    for port in (80, *http_ports(found)):
        made = route_table(found, port)
        domains = [domain for host in made.hosts for domain in host.domains]
        names = [host.name for host in made.hosts]

        assert len(domains) == len(set(domains))
        assert len(names) == len(set(names))
        assert all(domain == domain.lower() for domain in domains)
        assert domains.count("*") == 1
        assert all(host.routes for host in made.hosts)


def test_ports_that_cannot_carry_http_have_no_routes() -> None:
    ports = tuple(Port(80 + number, "p", protocol) for number, protocol in enumerate(Protocol))
    service = ServiceRecord(host="a.default.svc.cluster.local", namespace="default", ports=ports)

    assert {ports[number - 80].protocol for number in http_ports(view(services=[service]))} == {
        Protocol.HTTP,
        Protocol.HTTP2,
        Protocol.GRPC,
        Protocol.SNIFFED,
    }


def test_oldest_virtual_service_wins() -> None:
    found = view(
        virtual_service("old", ["a"], [to("v1")]), virtual_service("new", ["a"], [to("v2")])
    )

    assert route_names(found) == ["v1"]


def test_exact_host_wins_over_a_wildcard() -> None:
    found = view(
        virtual_service("wide", ["*.svc.cluster.local"], [to("v1")]),
        virtual_service("exact", ["a"], [to("v2")]),
    )

    assert route_names(found) == ["v2"]


def test_virtual_service_without_a_route_for_the_port_leaves_the_default() -> None:
    elsewhere = {"match": [{"port": 81}], **to("v1")}

    assert route_names(view(virtual_service("vs", ["a"], [elsewhere]))) == ["default"]
    assert route_names(view(virtual_service("vs", ["a"], []))) == ["default"]


def test_virtual_service_for_a_gateway_only_does_not_concern_workloads() -> None:
    bound = virtual_service("vs", ["a"], [to("v1")], gateways=["edge"])
    both = virtual_service("vs", ["a"], [to("v1")], gateways=["edge", "mesh"])

    assert route_names(view(bound)) == ["default"]
    assert route_names(view(both)) == ["v1"]


def test_routes_behind_one_for_all_requests_are_left_out() -> None:
    conditional = {"match": [{"uri": {"prefix": "/x"}}], **to("v1")}

    assert route_names(view(virtual_service("vs", ["a"], [conditional, to("v2"), to("v3")]))) == [
        "v1",
        "v2",
    ]


def test_each_match_is_a_route_with_its_own_name_and_statistics() -> None:
    matches = [{"name": "one", "uri": {"exact": "/1"}, "statPrefix": "x"}, {"uri": {"exact": "/2"}}]
    found = view(virtual_service("vs", ["a"], [{"match": matches, **to("v1")}]))

    assert route_names(found) == ["v1.one", "v1"]
    routes = route_table(found, 80).hosts[0].routes
    assert [route.statistics for route in routes] == ["x", ""]


def test_a_route_names_the_match_of_the_object_that_it_comes_from() -> None:
    elsewhere = {"uri": {"exact": "/0"}, "port": 81}
    matches = [elsewhere, {"uri": {"exact": "/1"}}, {"uri": {"exact": "/2"}}]
    routed = virtual_service("vs", ["a"], [{"match": matches, **to("v1")}, to("v2")])
    routes = route_table(view(routed), 80).hosts[0].routes

    assert {route.origin.key for route in routes if route.origin} == {routed.key}
    assert [route.origin.field for route in routes if route.origin] == [
        "spec.http[0].match[1]",
        "spec.http[0].match[2]",
        "spec.http[1]",
    ]


def test_a_route_of_no_object_says_so() -> None:
    routes = [route for host in route_table(view(), 80).hosts for route in host.routes]
    assert [(route.name, route.origin) for route in routes] == [
        ("default", None),
        ("allow_any", None),
    ]


def test_retries_wait_as_asked_and_may_try_an_endpoint_again() -> None:
    asked = msgspec.convert(
        {"attempts": 1, "backoff": "200ms", "retryIgnorePreviousHosts": False},
        HTTPRetry,
        dec_hook=decode_scalar,
    )
    made = retries(asked)
    usual = retries(HTTPRetry(attempts=1))

    assert made
    assert usual
    assert made.backoff == 0.2
    assert made.elsewhere is False
    assert usual.backoff is None
    assert usual.elsewhere


def test_a_single_destination_sets_headers_last_and_the_host_where_the_route_does_not() -> None:
    def forwarded(**route: Any) -> Route:
        asked = {"host": "by-place.test", "x-a": "place"}
        place = {"destination": {"host": "a"}, "headers": {"request": {"set": asked}}}
        made = virtual_service("v", ["a"], [{"route": [place], **route}])
        return route_table(view(made), 80).hosts[0].routes[0]

    def host_of(route: Route) -> str:
        assert isinstance(route.action, Forward)
        return route.action.host

    by_route = forwarded(headers={"request": {"set": {"Host": "by-route.test", "x-a": "route"}}})
    values = [each.value for each in by_route.changes.request_additions if each.name == "x-a"]
    assert values == ["route", "place"]
    assert host_of(by_route) == "by-route.test"
    assert host_of(forwarded(rewrite={"authority": "rewritten.test"})) == "rewritten.test"
    assert host_of(forwarded()) == "by-place.test"


@pytest.mark.parametrize(("percentage", "copies"), [(0, 0), (0.00001, 0), (0.0001, 1), (100, 1)])
def test_a_share_of_copies_below_the_least_is_none(percentage: float, copies: int) -> None:
    mirror = {"mirror": {"host": "a"}, "mirrorPercentage": {"value": percentage}}
    made = virtual_service("v", ["a"], [{**to("v1"), **mirror}])
    action = route_table(view(made), 80).hosts[0].routes[0].action
    assert isinstance(action, Forward)
    assert len(action.mirrors) == copies


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("mesh", "mesh"),
        ("edge", "shop/edge"),
        ("./edge", "shop/edge"),
        ("other/edge", "other/edge"),
        ("edge.other.svc.cluster.local", "other/edge"),
    ],
)
def test_gateway_is_named_from_the_virtual_services_namespace(written: str, name: str) -> None:
    assert gateway_name(written, "shop") == name


def test_a_new_cookie_has_the_attributes_that_are_asked_for() -> None:
    asked = msgspec.convert(
        {
            "httpCookie": {
                "name": "user",
                "ttl": "0s",
                "attributes": [{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}],
            }
        },
        ConsistentHash,
        dec_hook=decode_scalar,
    )
    (policy,) = to_cluster(OutboundCluster(80, "", "a"), asked).hashing
    assert policy.attributes == (("SameSite", "Lax"), ("Secure", ""))
