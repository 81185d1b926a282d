"""What follows from policies alone is what a compilation makes of them."""

from __future__ import annotations

import msgspec
import pytest
from envoy.config.endpoint.v3 import endpoint_pb2

from meshd.api.read import read_objects
from meshd.compile.compiler import Compiler
from meshd.compile.policy.authorization import by_namespace
from meshd.model.pool import Pool
from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.node.packing import Packer, packed
from meshd.registry.registry import build_snapshot
from meshd.xds.resources import ENDPOINTS, LISTENER, ROUTES, TYPES, Resources, pack

MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: servers}
spec:
  selector: {app: web}
  ports: [{port: 80, name: http}, {port: 90, name: tcp}, {port: 70, name: any}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: gateways}
spec:
  selector: {app: edge}
  servers:
  - {port: {number: 8000, name: http, protocol: HTTP}, hosts: ["*"]}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: gateways}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{route: [{destination: {host: web.servers.svc.cluster.local, port: {number: 80}}}]}]
  tcp: [{route: [{destination: {host: web.servers.svc.cluster.local, port: {number: 90}}}]}]
"""
POLICY = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: NAME, namespace: istio-system}
spec: SPEC
"""
DENY = "{action: DENY, rules: [{from: [{source: {namespaces: [bad]}}]}]}"
WORSE = DENY.replace("bad", "worse")
NO_ADMIN = "{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}"
NAMED = "{action: DENY, rules: [{when: [{key: connection.sni, values: [bad.test]}]}]}"


def policy(name: str, spec: str) -> str:
    return POLICY.replace("NAME", name).replace("SPEC", spec)


def workload(name: str, namespace: str) -> Workload:
    return Workload(
        uid=f"{namespace}.{name}",
        name=name,
        namespace=namespace,
        netns=f"/{name}",
        service_account=name,
        addresses=(f"198.18.0.{len(name)}",),
        labels={"app": name},
        enrolled=True,
    )


def snapshot(text: str, *, short_way: bool) -> Snapshot:
    members = (workload("web", "servers"), workload("edge", "gateways"), workload("user", "users"))
    made = build_snapshot(
        [read.object for read in read_objects(MANIFEST + text, "test.yaml")],
        members,
        MeshOptions(short_way=short_way, hbone=True),
        {},
    )
    callers = tuple(f"spiffe://cluster.local/ns/{one.namespace}/sa/{one.name}" for one in members)
    known = ShortWay(callers, tuple(one.uid for one in members))
    return msgspec.structs.replace(made, short_way=known)


def published(compiler: Compiler, found: Snapshot) -> Resources:
    return Packer().pack(compiler.compile(found, found.workloads))[Pool.TRAFFIC]


def versions(found: Resources, *types: str) -> dict[str, str]:
    """By name, but for workloads' own listeners."""
    return {
        name: one.version
        for each in types
        for name, one in found.of_type(each).items()
        if not name.endswith("|inbound")
    }


def changed(before: Resources, after: Resources, *types: str) -> dict[str, str]:
    old, new = versions(before, *types), versions(after, *types)
    assert old.keys() == new.keys()
    return {name: version for name, version in new.items() if old[name] != version}


def _named_later(assigned: str) -> str:
    """The name of endpoints once it is compiled that none of them is reached by the short way:
    until then, clusters stay that may lead there."""
    return assigned.replace(";http1", "").replace(";local", "")


@pytest.mark.parametrize("short_way", [False, True])
@pytest.mark.parametrize("before", ["", policy("a", WORSE)], ids=["none", "one"])
@pytest.mark.parametrize("spec", [NO_ADMIN, DENY, "{}", NAMED])
def test_listeners_and_tables_under_other_rules_are_those_that_are_compiled(
    before: str, spec: str, short_way: bool
) -> None:
    old = snapshot(before, short_way=short_way)
    new = snapshot(before + policy("b", spec), short_way=short_way)
    compiler = Compiler()
    first = published(compiler, old)
    guarded, reached = compiler.guarded, compiler.reached
    assert guarded is not None
    assert reached is not None
    guards = guarded.stricter(by_namespace(new.authorization_policies), new.workloads.values())
    expected = published(Compiler(), new)
    made = {name: pack(name, one).version for name, one in guarded.under(guards)}
    assert made.items() >= changed(first, expected, LISTENER, ROUTES).items()
    assert made.items() <= versions(expected, LISTENER, ROUTES).items()
    told = {one.name: packed(one).body for one in reached.under({}, guards)}
    now, later = first.of_type(ENDPOINTS), expected.of_type(ENDPOINTS)
    names = {name: name if name in later else _named_later(name) for name in told}
    differing = {name for name in later if name not in now or now[name] != later[name]}
    assert set(names.values()) == differing
    for name, body in told.items():
        there = endpoint_pb2.ClusterLoadAssignment.FromString(body)
        there.cluster_name = names[name]
        assert there.SerializeToString(deterministic=True) == later[names[name]].body
    assert bool(told) is (short_way and (not before or spec == NAMED))


def test_what_allows_no_less_changes_nothing() -> None:
    old = snapshot(policy("a", DENY) + policy("b", "{}"), short_way=False)
    compiler = Compiler()
    published(compiler, old)
    assert compiler.guarded is not None
    for now in (policy("a", DENY), policy("b", "{}"), "", policy("b", "{rules: [{}]}")):
        new = snapshot(now, short_way=False)
        guards = compiler.guarded.stricter(
            by_namespace(new.authorization_policies), new.workloads.values()
        )
        assert guards == {}
        assert list(compiler.guarded.under(guards)) == []


def test_policies_that_are_about_nobody_here_add_no_byte() -> None:
    """A hundred, with a thousand rules."""
    rules = ", ".join(f"{{to: [{{operation: {{paths: [/p{number}]}}}}]}}" for number in range(10))
    selector = "selector: {matchLabels: {app: elsewhere}}"
    others = "".join(
        policy(f"p{number}", f"{{{selector}, action: {action}, rules: [{rules}]}}")
        for number, action in enumerate(("ALLOW", "DENY", "AUDIT", "ALLOW") * 25)
    )
    for about in ("", policy("a", DENY)):
        known = published(Compiler(), snapshot(about, short_way=True))
        found = published(Compiler(), snapshot(about + others, short_way=True))
        assert versions(found, *TYPES) == versions(known, *TYPES)
