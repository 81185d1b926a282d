"""Whatever changes of an extension provider's service, it is asked as a fresh compiler has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from envoy.config.route.v3 import route_pb2

from meshd.api.read import read_objects
from meshd.compile.compiler import Compiler
from meshd.compile.names import ASKING
from meshd.model.extension_provider import AuthorizationProvider
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.node.packing import Packer
from meshd.registry.registry import build_snapshot
from meshd.xds.resources import CLUSTER, ROUTES, TYPES

if TYPE_CHECKING:
    from meshd.xds.resources import Resources

PROVIDER = AuthorizationProvider(
    name="p", host="ask.providers.svc.cluster.local", port=90, speaks="grpc"
)
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: SPACE}
spec: {selector: {app: NAME}, ports: [{port: 90, name: grpc}, {port: 80, name: http}]}
---
"""
ASK, WEB = (
    SERVICE.replace("NAME", name).replace("SPACE", space)
    for name, space in (("ask", "providers"), ("web", "servers"))
)
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: custom, namespace: servers}
spec: {action: CUSTOM, provider: {name: p}, rules: [{}]}
---
"""
LIMITED = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ask, namespace: providers}
spec:
  host: ask.providers.svc.cluster.local
  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 7}}}
---
"""


def workload(name: str, space: str, account: str = "default") -> Workload:
    return Workload(
        uid=f"{space}.{name}",
        name=name,
        namespace=space,
        netns=f"/{name}",
        service_account=account,
        addresses=(f"198.18.0.{1 + sum(name.encode()) % 200}",),
        labels={"app": name.partition("-")[0]},
        enrolled=True,
    )


WEB_ONLY = (workload("web", "servers"),)
BOTH = (*WEB_ONLY, workload("ask", "providers"))
STEPS = {
    "an endpoint comes": (WEB + ASK + POLICY, BOTH),
    "another account serves it": (
        WEB + ASK + POLICY,
        (*BOTH, workload("ask-2", "providers", "other")),
    ),
    "a rule limits it": (WEB + ASK + POLICY + LIMITED, BOTH),
    "it goes": (WEB + POLICY, BOTH),
    "another scope comes": (
        WEB + ASK + POLICY,
        (*BOTH, workload("new", "others")),
    ),
    "no policy asks": (WEB + ASK, BOTH),
    "another service comes": (
        WEB + ASK + POLICY + SERVICE.replace("NAME", "more").replace("SPACE", "servers"),
        BOTH,
    ),
}


def compiled(compiler: Compiler, text: str, members: tuple[Workload, ...]) -> Resources:
    objects = [read.object for read in read_objects(text, "test.yaml")]
    options = MeshOptions(providers=(PROVIDER,))
    snapshot = build_snapshot(objects, members, options, {})
    return Packer().pack(compiler.compile(snapshot, snapshot.workloads))[Pool.TRAFFIC]


def versions(found: Resources) -> dict[tuple[str, str], str]:
    return {
        (each, name): one.version for each in TYPES for name, one in found.of_type(each).items()
    }


def upstream(found: Resources) -> str:
    """The cluster to which questions go."""
    table = route_pb2.RouteConfiguration.FromString(found.of_type(ROUTES)[ASKING].body)
    return table.virtual_hosts[0].routes[0].route.cluster


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("start", [WEB_ONLY, BOTH], ids=["without", "with"])
def test_what_changes_of_a_provider_is_compiled_as_from_nothing(
    start: tuple[Workload, ...], step: tuple[str, tuple[Workload, ...]]
) -> None:
    compiler = Compiler()
    compiled(compiler, WEB + ASK + POLICY, start)
    found = compiled(compiler, *step)
    assert versions(found) == versions(compiled(Compiler(), *step))
    assert (upstream(found) in found.of_type(CLUSTER)) is (step[0] != WEB + POLICY)


def test_without_providers_nothing_is_there_for_them() -> None:
    objects = [read.object for read in read_objects(WEB, "test.yaml")]
    snapshot = build_snapshot(objects, BOTH, MeshOptions(), {})
    found = Packer().pack(Compiler().compile(snapshot, snapshot.workloads))[Pool.TRAFFIC]
    assert not any(ASKING in found.of_type(each) for each in TYPES)
