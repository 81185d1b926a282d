"""What is said to be never reached is never chosen, whatever is asked, from wherever."""

from __future__ import annotations

import random

import msgspec
import pytest

from meshd.analysis.reachability import unreached
from meshd.analysis.world import World
from meshd.api.base import Key, Object, decode_scalar
from meshd.api.decode import Path
from meshd.api.read import read_objects
from meshd.api.virtual_service.types import VirtualService
from meshd.compile.explain.route_choice import choose_host, choose_route
from meshd.compile.plan.choices import To
from meshd.compile.plan.origin import Origin
from meshd.compile.traffic.scope_listeners import scope_choices, scope_listeners
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.view import View
from tests.envoy.chains import meshes
from tests.envoy.routes import tables

HEAD = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
NAMED = "metadata: {name: %s, namespace: ns}\nspec:\n"
TO = "route: [{destination: {host: a}}]"


def read(text: str) -> VirtualService:
    (found,) = (one.object for one in read_objects(text, "f.yaml"))
    assert isinstance(found, VirtualService)
    return found


def http(*routes: str, name: str = "x", hosts: str = "[a]", gateways: str = "[mesh]") -> str:
    listed = "".join(f"  - {{{route}}}\n" for route in routes)
    head = HEAD + NAMED % name
    bound = f"  hosts: {hosts}\n  gateways: {gateways}\n" if hosts else ""
    return f"{head}{bound}  http:\n{listed}"


def told(*texts: str) -> list[str]:
    """Return what is said of the first object, where the others are in force, too."""
    first, *others = map(read, texts)
    objects: dict[Key, Object] = {found.key: found for found in (first, *others)}
    return [f"{field(path)}: {text}" for path, text in unreached(first, world(objects))]


def world(objects: dict[Key, Object]) -> World:
    return World(objects, "cluster.local")


def field(path: Path) -> str:
    named = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(named).removeprefix(".")


TAKES = "spec.http[1].match[0]: has no effect: http[0].match[0] takes all its requests"
SAME = "spec.http[1].match[0]: has no effect: http[0].match[0] is the same"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("uri: {exact: /a}", "uri: {exact: /a}", SAME),
        ("name: x, port: 80", "name: y, port: 80", SAME),
        ("uri: {prefix: /a}", "uri: {prefix: /ab}", TAKES),
        ("uri: {prefix: /A}, ignoreUriCase: true", "uri: {exact: /ab}", TAKES),
        ("uri: {regex: /.*}, port: 80", "uri: {prefix: /a}, port: 80", TAKES),
        ("uri: {regex: /v.}", "uri: {exact: /v1}", TAKES),
        ("method: {exact: GET}", "method: {exact: GET}, uri: {exact: /a}", TAKES),
        ("sourceLabels: {a: b}", "sourceLabels: {a: b, c: d}, uri: {regex: x.y}", TAKES),
        ("gateways: [mesh]", "gateways: [mesh], port: 80", TAKES),
        ("withoutHeaders: {x: {prefix: a}}", "withoutHeaders: {x: {prefix: a}}, port: 1", TAKES),
        ("headers: {x: {regex: .*}}", "headers: {x: {exact: a}}", TAKES),
        (
            "uri: {prefix: /a}, headers: {x: {prefix: b}}",
            "uri: {prefix: /ab}, headers: {x: {exact: bc}, y: {exact: z}}",
            TAKES,
        ),
    ],
)
def test_a_match_that_nothing_reaches_is_reported(first: str, second: str, expected: str) -> None:
    routes = (f"match: [{{{match}}}], {TO}" for match in (first, second))
    (found,) = told(http(*routes, gateways="[mesh, ns/g]"))
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("uri: {prefix: /a}, method: {exact: GET}", "uri: {prefix: /ab}"),
        ("uri: {prefix: /a}, headers: {x: {exact: a}}", "uri: {prefix: /ab}"),
        ("uri: {prefix: /ab}", "uri: {prefix: /a}"),
        ("uri: {prefix: /a}", "uri: {prefix: /ab}, ignoreUriCase: true"),
        ("uri: {prefix: /a}, port: 80", "uri: {prefix: /ab}, port: 81"),
        ("uri: {prefix: /a}, withoutHeaders: {x: {}}", "uri: {prefix: /ab}"),
        ("uri: {prefix: /a}, gateways: [mesh]", "uri: {prefix: /ab}"),
        ("uri: {prefix: /a}, gateways: [mesh]", "uri: {prefix: /ab}, gateways: [ns/g]"),
        ("uri: {regex: '/a[0-9]*'}", "uri: {prefix: /a}"),
        ("headers: {'@request.auth.claims.a': {exact: b}}", "uri: {prefix: /}, port: 80"),
        ("sourceNamespace: shop", "uri: {prefix: /a}"),
    ],
)
def test_a_match_that_something_may_reach_is_not_reported(first: str, second: str) -> None:
    routes = (f"match: [{{{match}}}], {TO}" for match in (first, second))
    assert told(http(*routes, gateways="[mesh, ns/g]")) == []


@pytest.mark.parametrize(
    "every",
    [
        "",
        "match: [{uri: {prefix: /}}], ",
        "match: [{uri: {regex: /.*}}], ",
        "match: [{uri: {prefix: /}, ignoreUriCase: true, name: n}], ",
        "match: [{gateways: [mesh]}], ",
        "match: [{method: {regex: .*}}], ",
    ],
)
def test_the_route_after_one_that_takes_every_request_is_reported_once(every: str) -> None:
    later = f"match: [{{uri: {{exact: /x}}}}], {TO}"
    assert told(http(every + TO, later, later)) == [
        "spec.http[1]: is never reached: http[0] takes every request; put that one last"
    ]


def test_a_root_takes_no_more_than_its_delegate() -> None:
    root = http("delegate: {name: d}", f"match: [{{uri: {{exact: /x}}}}], {TO}")
    assert told(root) == []
    assert told(root, http(f"match: [{{uri: {{prefix: /y}}}}], {TO}", name="d", hosts="")) == []
    assert told(root, http(f"match: [{{uri: {{prefix: /}}}}], {TO}", name="d", hosts="")) == [
        "spec.http[1]: is never reached: http[0].match[0] of VirtualService ns/d takes every "
        "request; put that one last"
    ]


def test_a_delegates_route_that_its_root_takes_before_is_reported_at_the_root() -> None:
    root = http(f"match: [{{uri: {{prefix: /a}}}}], {TO}", "delegate: {name: d}")
    delegate = http(f"match: [{{uri: {{prefix: /a/b}}}}], {TO}", TO, name="d", hosts="")
    assert told(root, delegate) == [
        "spec.http[1].delegate: http[0].match[0] of VirtualService ns/d has no effect: "
        "http[0].match[0] takes all its requests; put that one later"
    ]
    assert told(delegate, root) == []


@pytest.mark.parametrize(
    ("kind", "first", "second", "reason"),
    [
        ("tls", "sniHosts: [a.b]", "sniHosts: [a.b]", "tls[0].match[0] is the same"),
        ("tcp", "port: 80", "port: 80", "tcp[0].match[0] is the same"),
        ("tls", "sniHosts: [a.b, c.b]", "sniHosts: [A.b], port: 1", "tls[0].match[0] takes all"),
        ("tls", "sniHosts: ['*']", "sniHosts: ['*', a.b], port: 1", "tls[0].match[0] takes all"),
        (
            "tcp",
            "destinationSubnets: [198.18.0.9/24]",
            "destinationSubnets: [198.18.0.0/24], sourceLabels: {a: b}",
            "tcp[0].match[0] takes all its connections",
        ),
    ],
)
def test_a_connections_match_that_nothing_reaches_is_reported(
    kind: str, first: str, second: str, reason: str
) -> None:
    routes = "".join(f"  - {{match: [{{{match}}}], {TO}}}\n" for match in (first, second))
    (found,) = told(f"{HEAD}{NAMED % 'x'}  hosts: [a.b]\n  {kind}:\n{routes}")
    assert found.startswith(f"spec.{kind}[1].match[0]: has no effect: {reason}")


def test_a_smaller_network_or_a_longer_name_is_reached_after_a_larger_or_shorter_one() -> None:
    subnet = "match: [{destinationSubnets: [198.18.0.0/24]}], "
    assert told(f"{HEAD}{NAMED % 'x'}  hosts: [a]\n  tcp: [{{{TO}}}, {{{subnet}{TO}}}]\n") == []
    wild, exact = (f"match: [{{sniHosts: [{name}]}}], " for name in ("'*.b'", "a.b"))
    tls = f"  tls: [{{{wild}{TO}}}, {{{exact}{TO}}}]\n"
    assert told(f"{HEAD}{NAMED % 'x'}  hosts: ['*.b']\n{tls}") == []


def origins(found: VirtualService, objects: dict[Key, Object]) -> set[Origin]:
    """Return the fields that are said to be never reached, but for whole routes."""
    paths = (path for path, _ in unreached(found, world(objects)))
    return {Origin(found.key, field(path)) for path in paths if path[-1] != "delegate"}


def test_no_request_takes_a_route_that_is_said_to_be_never_reached() -> None:
    said = 0
    chance = random.Random(5)  # noqa: S311
    for case in tables.cases(chance, 150):
        written = [one for one in case.written if one["kind"] == "VirtualService"]
        listed = msgspec.convert(written, list[VirtualService], dec_hook=decode_scalar)
        objects: dict[Key, Object] = {found.key: found for found in listed}
        dead = {place for found in listed for place in origins(found, objects)}
        said += len(dead)
        for _ in range(40):
            asked = tables.request(chance, case)
            host = choose_host(case.table, asked)
            route = choose_route(host, asked) if host else None
            if route and route.origin:
                taken = {route.origin, route.delegate}
                assert not {place for place in dead if place in taken}, (asked, case.written)
    assert said > 50


def test_no_connection_takes_a_rule_that_is_said_to_be_never_reached() -> None:
    said = 0
    for number in range(150):
        chance = random.Random(number)  # noqa: S311
        mesh = meshes.mesh(chance, "n")
        view = View.of(MeshIndex.of(mesh.snapshot), mesh.scope)
        objects: dict[Key, Object] = {one.key: one for one in mesh.snapshot.virtual_services}
        dead = {place for one in mesh.snapshot.virtual_services for place in origins(one, objects)}
        said += len(dead)
        for listener in scope_listeners(
            view.scope.name,
            scope_choices(view, mesh.snapshot.options),
            "dns",
            mesh.snapshot.options,
        ):
            assert not dead & set(asked_for(listener.choice))
    assert said > 20


def asked_for(way: object) -> list[Origin]:
    """Return the origins in a tree of questions."""
    if isinstance(way, To):
        return [way.origin] if way.origin else []
    if isinstance(way, dict):
        return [one for each in way.values() for one in asked_for(each)]
    if isinstance(way, tuple):
        return [one for each in way for one in asked_for(each)]
    if isinstance(way, msgspec.Struct):
        fields = (getattr(way, name) for name in way.__struct_fields__)
        return [one for each in fields for one in asked_for(each)]
    return []
