"""Where configuration was lost, workloads take mutual TLS only and reach services only."""

from __future__ import annotations

import pytest

from meshd.api.base import Object, ObjectMeta
from meshd.api.peer_authentication.types import (
    MutualTLS,
    PeerAuthentication,
    PeerAuthenticationSpec,
)
from meshd.api.read import read_objects
from meshd.compile.policy.peer_authentication import Mode, peer_policy
from meshd.compile.replacement.lost_configuration import closed_for_lost
from meshd.config.withheld import closed_object
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot

SERVICES = "---".join(
    f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{clusterIP: 198.19.0.{number}, ports: [{{name: http, port: 80}}]}}
"""
    for number, name in enumerate(("db", "web"), 1)
)
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: shop}
spec: {hosts: HOSTS, http: [ROUTE]}
"""


def routes(name: str, hosts: str, route: str = "{route: [{destination: {host: db}}]}") -> str:
    return ROUTES.replace("NAME", name).replace("HOSTS", hosts).replace("ROUTE", route)


def objects(*texts: str) -> list[Object]:
    return [read.object for read in read_objects("---".join(texts), "a.yaml")]


def policy(namespace: str, name: str) -> PeerAuthentication:
    return PeerAuthentication(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=PeerAuthenticationSpec(mtls=MutualTLS("PERMISSIVE")),
    )


def mode(snapshot: Snapshot, namespace: str) -> Mode:
    workload = Workload(uid=f"{namespace}.a", name="a", namespace=namespace, netns="/a")
    return peer_policy(snapshot.peer_authentications, workload, "istio-system").mode


def test_the_whole_mesh_is_strict_whatever_is_known() -> None:
    before = Snapshot(peer_authentications=(policy("istio-system", "a"), policy("shop", "a")))
    assert mode(before, "other") is mode(before, "shop") is Mode.PERMISSIVE
    after = closed_for_lost(before)
    assert mode(after, "other") is mode(after, "shop") is Mode.STRICT
    assert after.options.outbound_policy == "REGISTRY_ONLY"


@pytest.mark.parametrize(
    ("lost", "services", "closed"),
    [
        (routes("lost", "[db]"), {"db"}, {"root"}),
        (routes("lost", "['*.shop.svc.cluster.local']"), {"db", "web"}, {"root"}),
        (routes("lost", "[b.test]"), set[str](), {"wild", "root"}),
        (routes("lost", "['*.a.test']"), set[str](), {"wild", "root"}),
        (routes("lost", "[]"), set[str](), {"root"}),
        (
            """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: lost, namespace: shop}
spec: {host: db}
""",
            {"db"},
            set[str](),
        ),
    ],
    ids=["routes", "wildcard", "beside others", "above others", "delegate", "rule"],
)
def test_services_of_an_object_without_a_replacement_are_closed(
    lost: str, services: set[str], closed: set[str]
) -> None:
    there = objects(
        SERVICES,
        routes("wild", "['*.test']"),
        routes("root", "[x.a.test]", "{delegate: {name: lost}}"),
        routes("other", "[other.example]"),
    )
    (given_up,) = (closed_object(one) for one in objects(lost))
    assert given_up
    before = build_snapshot(there, (), MeshOptions(), {})
    after = closed_for_lost(before, (given_up,))
    assert {one.name for one in after.services.values() if one.closed} == services
    assert {
        one.metadata.name for one in after.virtual_services if isinstance(one, ClosedRoutes)
    } == closed
    assert given_up.key not in {one.key for one in after.virtual_services}
