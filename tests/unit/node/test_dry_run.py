"""A change is foreseen for the workloads that run: as clients, as servers and as gateways."""

from __future__ import annotations

from meshd.api.base import Key
from meshd.api.read import Read, read_objects
from meshd.api.yaml import read_path
from meshd.cli.effects import lines
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.node.dry_run import dry_run
from meshd.registry.registry import build_snapshot
from meshd.wire import Foreseen

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
"""
SUBSETS = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: V1}
    - {destination: {host: reviews, subset: v2}, weight: V2}
"""
STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: edge}
spec:
  selector: {app: edge}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["shop.example"]}]
"""
BY_GATEWAY = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: edge}
spec:
  hosts: [shop.example]
  gateways: [edge]
  http: [{route: [{destination: {host: reviews.shop.svc.cluster.local}}]}]
"""


def workload(namespace: str, name: str, number: int, **labels: str) -> Workload:
    return Workload(
        uid=f"{namespace}.{name}",
        name=name,
        namespace=namespace,
        netns=f"/run/netns/{name}",
        addresses=(f"198.18.0.{number}",),
        enrolled=True,
        labels=labels,
    )


RUNNING = (
    workload("shop", "reviews-1", 1, app="reviews", version="v1"),
    workload("shop", "reviews-2", 2, app="reviews", version="v2"),
    workload("web", "front", 3),
    workload("edge", "gate", 4, app="edge"),
    workload("far", "a", 5),
    workload("wide", "b", 6),
)


def routes(v1: int, v2: int) -> str:
    return ROUTES.replace("V1", str(v1)).replace("V2", str(v2))


def change(
    before: list[str], after: list[str], running: tuple[Workload, ...] = RUNNING
) -> Foreseen:
    was, becomes = _read(before), _read(after)

    def snapshot(reads: dict[Key, Read]) -> Snapshot:
        objects = [read.object for read in reads.values()]
        return build_snapshot(objects, running, MeshOptions(), {})

    def place_of(key: Key, field: str) -> str:
        return becomes[key].place_of(read_path(field)) if key in becomes else ""

    changed = {
        key
        for key in was.keys() | becomes.keys()
        if key not in was or key not in becomes or was[key].object != becomes[key].object
    }
    return dry_run(snapshot(was), snapshot(becomes), changed, place_of)


def _read(texts: list[str]) -> dict[Key, Read]:
    reads = (read for text in texts for read in read_objects(text, "shop.yaml"))
    return {read.object.key: read for read in reads}


def test_a_shifted_weight_is_one_line_for_all_namespaces() -> None:
    foreseen = change([SERVICE, SUBSETS, routes(100, 0)], [SERVICE, SUBSETS, routes(80, 20)])
    assert list(lines(foreseen)) == [
        "route of reviews.shop.svc:9080 in 5 namespaces: weight of v1 100 → 80, weight of v2 0 → 20"
        " (VirtualService shop/reviews spec.http[0].route[1], shop.yaml:10)"
    ]
    (effect,) = foreseen.effects
    assert effect.namespaces == ("edge", "far", "shop", "web", "wide")


def test_nothing_changes_where_the_same_is_said_otherwise() -> None:
    foreseen = change([SERVICE], [SERVICE, SUBSETS.partition("  subsets")[0]])
    assert list(lines(foreseen)) == ["nothing would change for any workload in the mesh"]


def test_routes_that_lose_their_subsets_are_said_to_lead_nowhere() -> None:
    text = "\n".join(lines(change([SERVICE, SUBSETS, routes(1, 1)], [SERVICE, routes(1, 1)])))
    assert (
        "route of reviews.shop.svc:9080 in 5 namespaces leads nowhere: reviews.shop.svc:9080 subset"
        " v1 is not there (VirtualService shop/reviews spec.http[0], shop.yaml:8)"
    ) in text
    assert "upstream reviews.shop.svc:9080 subset v2 in 5 namespaces goes" in text


def test_a_policy_is_told_of_the_workloads_that_have_it() -> None:
    (effect,) = change([SERVICE], [SERVICE, STRICT]).effects
    assert (effect.kind, effect.workloads) == ("policy", ("shop.reviews-1", "shop.reviews-2"))
    assert (effect.details[0].before, effect.details[0].after) == ("PERMISSIVE", "STRICT")
    assert (effect.object, effect.field) == ("PeerAuthentication shop/default", "spec.mtls.mode")


def test_what_a_gateway_opens_is_told_of_its_workload() -> None:
    effects = change([SERVICE], [SERVICE, GATEWAY, BY_GATEWAY]).effects
    assert {one.kind for one in effects} == {"listener", "connections", "route"}
    assert {one.gateways for one in effects} == {("edge.gate",)}


def test_a_route_behind_a_wider_one_is_said_not_to_be_reached() -> None:
    wide = routes(1, 1).replace("  - route:", "  - match: [{uri: {prefix: /a}}]\n    route:")
    narrow = wide + "  - {match: [{uri: {exact: /a/b}}], route: [{destination: {host: reviews}}]}\n"
    text = "\n".join(lines(change([SERVICE, SUBSETS, wide], [SERVICE, SUBSETS, narrow])))
    assert (
        "route of reviews.shop.svc:9080, path exact /a/b in 5 namespaces is never reached" in text
    )


def test_a_namespace_without_workloads_is_told_as_one_that_may_have_some() -> None:
    foreseen = change([], [SERVICE], running=())
    assert foreseen.unpopulated == ("shop",)
    assert {one.namespaces for one in foreseen.effects} == {("shop",)}


def test_an_object_that_would_be_left_out_is_named() -> None:
    subsets = ", ".join(f"{{name: v{number}}}" for number in range(20))
    rule = SUBSETS.partition("  subsets")[0] + f"  subsets: [{subsets}]\n"
    ports = ", ".join(f"{{name: http-{number}, port: {number}}}" for number in range(9080, 9180))
    grown = SERVICE.replace("{name: http, port: 9080}", ports)
    (told,) = change([SERVICE, rule], [grown, rule]).left_out
    assert told.startswith("DestinationRule shop/reviews: its subsets are left out")
