"""A mesh that has grown beyond what some objects may make in it."""

from __future__ import annotations

import pytest

from meshd.analysis.references import check_references
from meshd.api.base import Object, ObjectMeta
from meshd.api.destination_rule.types import DestinationRule, DestinationRuleSpec, Subset
from meshd.api.networking import VirtualService, VirtualServiceSpec
from meshd.api.protocol import Protocol
from meshd.api.read import Read, read_objects
from meshd.compile.http.delegation import delegated
from meshd.compile.http.routes import http_ports, route_table
from meshd.compile.plan.routes import DirectResponse, Forward, Route, RouteTable
from meshd.compile.replacement.heavy import Weighing
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.bounded import BoundedRoutes, BoundedRule
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.excess import MOST_SUBSETS, MOST_SUBSETS_OF_MANY
from meshd.model.service import Port, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.registry.registry import build_snapshot


def rule(host: str, subsets: int) -> DestinationRule:
    spec = DestinationRuleSpec(
        host=host,
        export_to=("*",),
        subsets=tuple(Subset(name=f"v{number}") for number in range(subsets)),
    )
    return DestinationRule(metadata=ObjectMeta(name="all", namespace="shop"), spec=spec)


def mesh(services: int, found: DestinationRule) -> Snapshot:
    hosts = [f"s{number}.shop.svc.cluster.local" for number in range(services)]
    port = Port(80, "http", Protocol.HTTP)
    return Snapshot(
        services={
            host: ServiceRecord(host=host, namespace="shop", ports=(port,)) for host in hosts
        },
        destination_rules=(found,),
        virtual_services=(
            VirtualService(
                metadata=ObjectMeta(name="a", namespace="shop"),
                spec=VirtualServiceSpec(hosts=("a",)),
            ),
        ),
    )


def test_a_rule_for_all_services_keeps_few_subsets_however_many_services_there_are() -> None:
    weighing, small = Weighing(), rule("*.local", MOST_SUBSETS_OF_MANY)
    grown = mesh(MOST_SUBSETS, small)
    assert weighing.lighten(grown) is grown
    assert weighing.problems == ()


def test_a_rule_that_a_grown_mesh_makes_too_much_of_loses_its_subsets_only_and_says_so() -> None:
    weighing, many = Weighing(), rule("*.local", MOST_SUBSETS_OF_MANY + 1)
    assert weighing.lighten(mesh(10, many)).destination_rules == (many,)
    grown = mesh(MOST_SUBSETS, many)
    light = weighing.lighten(grown)
    (left,) = light.destination_rules
    assert (left.spec.subsets, left.spec.export_to) == ((), ("*",))
    assert light.services == grown.services
    assert light.virtual_services == grown.virtual_services
    (problem,) = weighing.problems
    assert "DestinationRule shop/all: its subsets are left out" in problem
    assert "answered 503" in problem
    assert weighing.lighten(mesh(10, many)).destination_rules == (many,)
    assert weighing.problems == ()


HOST = "api.example.com"
PRIVATE, PUBLIC = "['.']", "['*']"


def entry(namespace: str, ports: int, export_to: str = PUBLIC) -> Read:
    listed = ", ".join(f"{{number: {1 + n}, name: http-{n}, protocol: HTTP}}" for n in range(ports))
    return read(
        f"{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: api,"
        f" namespace: {namespace}}}, spec: {{hosts: [{HOST}], exportTo: {export_to},"
        f" resolution: DNS, ports: [{listed}]}}}}"
    )


def routes() -> Read:
    route = f"[{{destination: {{host: {HOST}, port: {{number: 1}}}}}}]"
    matches = ", ".join(
        f"{{match: [{{uri: {{exact: /{number}}}}}], route: {route}}}" for number in range(30)
    )
    return read(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: api,"
        f" namespace: b}}, spec: {{hosts: [{HOST}], http: [{matches}]}}}}"
    )


def subsets(host: str = HOST) -> Read:
    named = ", ".join(f"{{name: v{number}, labels: {{v: a}}}}" for number in range(20))
    return read(
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: api,"
        f" namespace: b}}, spec: {{host: '{host}', subsets: [{named}]}}}}"
    )


SUBSETS = ", ".join(f"{{name: v{number}, labels: {{v: a}}}}" for number in range(200))


def service(namespace: str, ports: int) -> Read:
    listed = ", ".join(f"{{port: {1 + n}, name: http-{n}}}" for n in range(ports))
    return read(
        f"{{apiVersion: v1, kind: Service, metadata: {{name: api, namespace: {namespace}}},"
        f" spec: {{clusterIP: 198.18.0.1, ports: [{listed}]}}}}"
    )


def read(text: str) -> Read:
    (found,) = read_objects(text, "a.yaml")
    return found


def gateway(hosts: int) -> Read:
    listed = ", ".join(f"h{number}.example.com" for number in range(hosts))
    return read(
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: gate, namespace: a},"
        f" spec: {{servers: [{{port: {{number: 80, name: http, protocol: HTTP}},"
        f" hosts: [{listed}]}}]}}}}"
    )


def delegate(routes: int) -> Read:
    listed = ", ".join(
        f"{{match: [{{uri: {{prefix: /api/{n}}}}}], directResponse: {{status: 200}}}}"
        for n in range(routes)
    )
    return read(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: rest,"
        f" namespace: a}}, spec: {{http: [{listed}]}}}}"
    )


def root() -> Read:
    return read(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: api,"
        f" namespace: b}}, spec: {{hosts: [{HOST}], http: [{{match: [{{uri: {{prefix: /api/}}}}],"
        " delegate: {name: rest, namespace: a}}, {directResponse: {status: 204}}]}}"
    )


def snapshot_of(*reads: Read, weighing: Weighing | None = None) -> Snapshot:
    objects = tuple(one.object for one in reads)
    return (weighing or Weighing()).lighten(build_snapshot(objects, (), MeshOptions(), {}))


def lightened(*reads: Read, weighing: Weighing | None = None) -> list[Object]:
    snapshot = snapshot_of(*reads, weighing=weighing)
    return [*snapshot.virtual_services, *snapshot.destination_rules]


def findings(severity: str, weighed: Read, *others: Read) -> list[str]:
    known = {one.object.key: one.object for one in others}
    found = check_references([weighed], known)
    return [one.message for one in found if one.severity == severity]


def refused(weighed: Read, *others: Read) -> bool:
    return bool(findings("error", weighed, *others))


def tables(snapshot: Snapshot, namespace: str) -> dict[int, RouteTable]:
    """Return the route tables of a namespace's clients, by port."""
    view = View.of(MeshIndex.of(delegated(snapshot)), Scope(namespace))
    return {port: route_table(view, port) for port in http_ports(view)}


def routes_of(snapshot: Snapshot, namespace: str) -> dict[int, tuple[Route, ...]]:
    """Return the routes of the host for a namespace's clients, by port."""
    return {
        port: next(host.routes for host in table.hosts if host.name == f"{HOST}:{port}")
        for port, table in tables(snapshot, namespace).items()
    }


def is_closed(found: tuple[Route, ...]) -> bool:
    (route, *more) = found
    action = route.action
    return not more and isinstance(action, Forward) and "~closed" in action.targets[0].upstream


WEIGHED = pytest.mark.parametrize("weighed", [routes(), subsets(), subsets("*.com")], ids=str)


@WEIGHED
@pytest.mark.parametrize("export_to", [PUBLIC, PRIVATE, "[b]"], ids=["all", "itself", "one"])
def test_services_of_other_namespaces_make_no_object_too_large(
    weighed: Read, export_to: str
) -> None:
    own, many = entry("b", 1), entry("a", 250, export_to)
    for around in ([own, many], [many, own], [many]):
        (left,) = lightened(*around, weighed)
        assert isinstance(left, BoundedRoutes | BoundedRule)
        assert left.spec == weighed.object.spec  # pyright: ignore[reportAttributeAccessIssue]
        assert not refused(weighed, *around)


@WEIGHED
@pytest.mark.parametrize("export_to", [PUBLIC, PRIVATE, "[a]"], ids=["all", "itself", "one"])
def test_services_of_an_objects_own_namespace_count(weighed: Read, export_to: str) -> None:
    own = entry("b", 250, export_to)
    assert lightened(own, weighed) != [weighed.object]
    assert refused(weighed, own)


def test_routes_are_closed_at_ports_beyond_the_first_of_another_namespaces_service() -> None:
    weighing = Weighing()
    snapshot = snapshot_of(entry("a", 250), routes(), weighing=weighing)
    for client in ("a", "b", "c"):
        found = routes_of(snapshot, client)
        held = [port for port, kept in found.items() if not is_closed(kept)]
        assert held == list(range(1, len(held) + 1))
        assert all(len(found[port]) == 30 for port in held)
        assert 10 < len(held) < 200
    (problem,) = weighing.problems
    assert f"{250 - len(held)} ports of {HOST} in namespace a" in problem
    assert findings("warning", routes(), entry("a", 250)) == [problem.partition(": ")[2]]


def test_a_service_of_the_own_namespace_is_routed_at_all_its_ports() -> None:
    snapshot = snapshot_of(entry("a", 250), entry("b", 5), routes())
    assert [len(found) for found in routes_of(snapshot, "b").values()] == [30] * 5


def test_services_of_one_namespace_take_nothing_from_those_of_another() -> None:
    everything = read(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: api,"
        " namespace: b}, spec: {hosts: ['*.com'], http: ["
        + ", ".join(
            f"{{match: [{{uri: {{exact: /{n}}}}}], directResponse: {{status: 200}}}}"
            for n in range(60)
        )
        + "]}}"
    )
    (alone,) = lightened(entry("c", 2), everything)
    (crowded,) = lightened(entry("a", 250), entry("c", 2), everything)
    assert alone == everything.object
    assert isinstance(crowded, BoundedRoutes)
    assert {namespace for namespace, _, _ in crowded.closed_ports} == {"a"}


def test_a_service_is_warned_of_ports_at_which_routes_of_others_are_closed() -> None:
    (warning,) = findings("warning", entry("a", 250), routes())
    assert "the routes of VirtualService b/api are closed" in warning
    assert findings("warning", entry("a", 5), routes()) == []


def test_subsets_are_left_out_only_for_services_with_too_many_ports() -> None:
    weighing = Weighing()
    few = read(
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: few, namespace:"
        " a}, spec: {hosts: [few.com], resolution: DNS, ports: [{number: 80, name: http,"
        " protocol: HTTP}]}}"
    )
    snapshot = snapshot_of(entry("a", 250), few, subsets("*.com"), weighing=weighing)
    view = View.of(MeshIndex.of(snapshot), Scope("b"))
    assert not (spec := view.rules(HOST).spec) or not spec.subsets
    assert (spec := view.rules("few.com").spec)
    assert len(spec.subsets) == 20
    (problem,) = weighing.problems
    assert f"the ports of {HOST} in namespace a" in problem


def test_routes_are_closed_at_a_gateway_of_another_namespace_with_too_many_hosts() -> None:
    everywhere = read(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: api,"
        " namespace: b}, spec: {hosts: ['*.example.com'], gateways: [a/gate, mesh], http: ["
        + ", ".join(
            f"{{match: [{{uri: {{exact: /{n}}}}}], directResponse: {{status: 200}}}}"
            for n in range(60)
        )
        + "]}}"
    )
    assert lightened(gateway(5), everywhere) == [everywhere.object]
    (left,) = lightened(gateway(1000), everywhere)
    assert isinstance(left, BoundedRoutes)
    assert left.closed_gateways == {"a/gate"}
    assert not refused(everywhere, gateway(1000))
    snapshot = snapshot_of(gateway(1000), everywhere)
    (routing,) = View.of(MeshIndex.of(snapshot), Scope("a")).at_gateway("a/gate").routings
    assert isinstance(routing.service, ClosedRoutes)


@pytest.mark.parametrize("form", ["h{}", "H{}.a", "h{}.a.svc", "h{}.a.svc.cluster.local"])
def test_hosts_count_at_a_gateway_however_they_are_written(form: str) -> None:
    services = [
        read(
            f"{{apiVersion: v1, kind: Service, metadata: {{name: h{n}, namespace: a}},"
            " spec: {ports: [{port: 80}]}}"
        )
        for n in range(20)
    ]
    servers = ", ".join(f"h{n}.a.svc.cluster.local" for n in range(20))
    gate = read(
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: gate, namespace: a},"
        " spec: {servers: [{port: {number: 80, name: http, protocol: HTTP},"
        f" hosts: [{servers}]}}]}}}}"
    )
    hosts, matches = (
        ", ".join(text.format(n) for n in range(count))
        for text, count in ((form, 20), ("{{uri: {{exact: /{}}}}}", 800))
    )
    wide = read(
        "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: api,"
        f" namespace: a}}, spec: {{hosts: [{hosts}], gateways: [gate],"
        f" http: [{{match: [{matches}], directResponse: {{status: 200}}}}]}}}}"
    )
    (left,) = lightened(*services, gate, wide)
    assert isinstance(left, ClosedRoutes)
    assert refused(wide, *services, gate)


def test_only_the_route_to_a_delegate_that_is_too_large_is_closed() -> None:
    around = [entry("b", 200), delegate(200)]
    small = snapshot_of(entry("b", 200), delegate(2), root())
    assert len(routes_of(small, "b")[1]) == 3
    large = snapshot_of(*around, root())
    (closed, rest) = routes_of(large, "b")[1]
    assert isinstance(closed.action, Forward)
    assert "~closed" in closed.action.targets[0].upstream
    assert isinstance(rest.action, DirectResponse)
    assert not refused(root(), *around)


def test_an_object_is_weighed_again_when_a_service_has_more_ports() -> None:
    weighing, weighed = Weighing(), routes()
    for ports, is_bounded in [(1, False), (250, True), (1, False)]:
        (left,) = lightened(entry("a", ports), weighed, weighing=weighing)
        assert isinstance(left, BoundedRoutes) is is_bounded


@pytest.mark.parametrize(
    "written", ["api", "API", "api.b", "api.b.svc", "api.b.svc.cluster.local", "*.local", "*"]
)
def test_an_object_is_weighed_again_by_whatever_name_it_has_for_a_service(written: str) -> None:
    weighing = Weighing()
    weighed = read(
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: api,"
        f" namespace: b}}, spec: {{host: '{written}', subsets: [{SUBSETS}]}}}}"
    )
    for ports in (None, 1, 40, 1, None, 40):
        services = () if ports is None else (service("b", ports),)
        (left,), (anew,) = (
            lightened(service("c", 1), *services, weighed, weighing=one)
            for one in (weighing, Weighing())
        )
        assert left == anew
        assert type(left) is type(anew)


def test_a_replacement_is_the_same_object_while_nothing_changes() -> None:
    weighing, around = Weighing(), [entry("a", 250), routes()]
    (first,), (again,) = (lightened(*around, weighing=weighing) for _ in range(2))
    assert first is again
