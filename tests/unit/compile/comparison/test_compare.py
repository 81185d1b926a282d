"""Two plans are compared part by part, and equal differences of several clients are one."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.api.base import Key
from meshd.compile.comparison.compare import Difference, compare
from meshd.compile.comparison.parts import Client, HostRoutes, Part, Planned
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.routes import DirectResponse, Forward, Route, Target
from meshd.compile.plan.secrets import ServedCertificate
from meshd.compile.plan.upstreams import Eds, Ejection, Limits, RoundRobin, Settings, Upstream
from meshd.matching.conditions import RouteMatch, TextMatch
from meshd.wire import Detail

REVIEWS = Key("VirtualService", "shop", "reviews")
HOST = "reviews.shop.svc.cluster.local"
V1, V2 = (f"outbound|9080|{subset}|{HOST}" for subset in ("v1", "v2"))
WEB = Client("namespace", "web")
OTHER = Client("namespace", "other")


def route(*targets: Target, **more: Any) -> Part:
    """The route of a VirtualService's only route."""
    origin = Origin(REVIEWS, "spec.http[0].match[0]")
    value = Route(name="", action=Forward(targets=targets), origin=origin, **more)
    return Part("route", "reviews.shop.svc:9080", value, origin)


def planned(*parts: Part, clients: tuple[Client, ...] = (WEB,)) -> Planned:
    return Planned({client: {part.key: part for part in parts} for client in clients})


def only(before: Planned, after: Planned) -> Difference:
    (found,) = compare(before, after)
    return found


def test_equal_plans_do_not_differ() -> None:
    assert compare(planned(route(Target(V1))), planned(route(Target(V1)))) == {}


def test_a_new_weight_is_told_with_the_field_that_says_it() -> None:
    before = planned(route(Target(V1)))
    after = planned(route(Target(V1, 80), Target(V2, 20, index=1)))
    assert only(before, after) == Difference(
        "changed",
        "route",
        "reviews.shop.svc:9080",
        (Detail("weight of v1", "100", "80"), Detail("weight of v2", "", "20")),
        Origin(REVIEWS, "spec.http[0].route[1]"),
    )


def test_targets_whose_subsets_have_one_name_are_told_apart() -> None:
    ratings = f"outbound|9080|v1|ratings.{HOST.partition('.')[2]}"
    before = planned(route(Target(V1, 1), Target(ratings, 1)))
    after = planned(route(Target(V1, 1), Target(ratings, 3)))
    assert [one.fact for one in only(before, after).details] == [
        "weight of ratings.shop.svc:9080 subset v1"
    ]


def test_a_difference_for_several_clients_is_told_once() -> None:
    clients = (WEB, OTHER)
    before = planned(route(Target(V1)), clients=clients)
    after = planned(route(Target(V2)), clients=clients)
    assert list(compare(before, after).values()) == [(OTHER, WEB)]


def test_the_name_of_a_cluster_of_other_rules_is_no_difference() -> None:
    assert compare(planned(route(Target(V1))), planned(route(Target(f"{V1}@shop/reviews")))) == {}


def test_a_route_that_moves_in_its_object_does_not_differ() -> None:
    moved = Origin(REVIEWS, "spec.http[7]")
    part = route(Target(V1))
    value = Route(name="", action=Forward(targets=(Target(V1),)), origin=moved)
    assert compare(planned(part), planned(Part(*part.key, value, moved))) == {}


def test_another_action_is_told() -> None:
    part = route(Target(V1))
    answer = Route(name="", action=DirectResponse(503), origin=part.origin)
    facts = {
        one.fact: (one.before, one.after)
        for one in only(planned(part), planned(Part(*part.key, answer, part.origin))).details
    }
    assert facts["action"] == ("forward", "answer")
    assert facts["status"] == ("", "503")


def test_settings_have_the_names_of_the_plan() -> None:
    def upstream(settings: Settings) -> Part:
        return Part("upstream", "reviews.shop.svc:9080", Upstream(V1, Eds(V1), settings))

    before = planned(upstream(Settings()))
    after = planned(upstream(Settings(connect_timeout=3.0, limits=Limits(connections=7))))
    facts = {one.fact: one.after for one in only(before, after).details}
    assert facts == {"settings connect timeout": "3", "settings limits connections": "7"}


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (Settings(limits=Limits(connections=7)), "connectionPool"),
        (Settings(ejection=Ejection(errors=5)), "outlierDetection"),
        (Settings(balancing=RoundRobin()), "loadBalancer"),
    ],
)
def test_a_setting_is_told_with_the_field_of_the_policy_that_sets_it(
    settings: Settings, part: str
) -> None:
    rule = Key("DestinationRule", "shop", "reviews")
    service = Origin(Key("Service", "shop", "reviews"), "spec.ports[0]")
    parts = ("connectionPool", "loadBalancer", "outlierDetection")
    set_at = tuple((one, Origin(rule, f"spec.trafficPolicy.{one}")) for one in parts)

    def upstream(found: Settings, *at: tuple[str, Origin]) -> Planned:
        value = Upstream(V1, Eds(V1), found, origin=service, set_at=at)
        return planned(Part("upstream", "reviews.shop.svc:9080", value, service))

    without, with_ = upstream(Settings()), upstream(settings, *set_at)
    wanted = Origin(rule, f"spec.trafficPolicy.{part}")
    assert only(without, with_).origin == wanted
    assert only(with_, without).origin == wanted
    assert compare(upstream(settings), with_) == {}


def test_another_order_of_the_same_routes_is_told() -> None:
    def host(*order: str) -> Part:
        return Part("host", "a", HostRoutes(("a",), only_tls=False, order=order))

    assert only(planned(host("x", "y")), planned(host("y", "x"))).details == (
        Detail("order", "x, y", "y, x"),
    )
    assert compare(planned(host("x", "y")), planned(host("z", "x", "y"))) == {}


def test_a_new_upstream_tells_how_many_endpoints_it_has() -> None:
    upstream = Part("upstream", "a:80", Upstream(V1, Eds(V1)))
    for places, told in (((), "none"), (("198.18.0.1:80",), "1")):
        found = only(planned(), planned(upstream, Part("endpoints", "a:80", places)))
        assert found.details == (Detail("endpoints", "", told),)


def test_endpoints_that_come_and_go_are_named() -> None:
    before = planned(Part("endpoints", "a:80", ("198.18.0.1:80", "198.18.0.2:80")))
    after = planned(Part("endpoints", "a:80", ("198.18.0.2:80", "198.18.0.3:80")))
    assert only(before, after).details == (
        Detail("endpoint 198.18.0.3:80", "", "added"),
        Detail("endpoint 198.18.0.1:80", "present", ""),
    )


def test_nothing_of_a_key_is_told() -> None:
    def certificate(key: bytes) -> Part:
        return Part("certificate", "kubernetes://x", ServedCertificate("x", b"chain", key))

    found = only(planned(certificate(b"old-key")), planned(certificate(b"new-key")))
    assert found.details == (Detail("content", "", "another"),)
    assert "key" not in str(compare(planned(), planned(certificate(b"key")))).replace("Key", "")


def test_the_default_route_of_a_new_host_is_a_matter_of_course() -> None:
    host = Part("host", "a:80", HostRoutes(("a",), only_tls=False, order=("",)))
    default = Part("route", "a:80", Route(name="default", action=Forward(targets=(Target(V1),))))
    assert only(planned(), planned(host, default)).kind == "host"


def test_the_host_of_new_routes_is_a_matter_of_course() -> None:
    host = Part("host", "a:80", HostRoutes(("a",), only_tls=False, order=("",)))
    value = Route(
        name="", match=RouteMatch(TextMatch("exact", "/x")), action=Forward(targets=(Target(V1),))
    )
    routed = Part("route", "a:80, path exact /x", value, Origin(REVIEWS, "spec.http[0]"))
    assert compare(planned(), planned(host, routed)).keys() >= {
        Difference("added", "route", routed.name, (), routed.origin)
    }
