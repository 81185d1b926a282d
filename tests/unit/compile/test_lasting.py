"""A change leaves the connections alone that it does not concern.

Envoy keeps those of filter chains that are the same as before, and only where nothing of the
listener has changed but its chains and the way to them:
https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/listeners/lds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import yaml

from meshd.api.read import read_objects
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot, hosts_without_address
from tests.unit.compile.messages import as_messages

Objects = dict[str, dict[str, Any]]


def parsed(text: str) -> Objects:
    """By kind and name."""
    found = [one for one in yaml.safe_load_all(text) if one]
    return {f"{one['kind']} {one['metadata']['name']}": one for one in found}


BASE = """
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp, port: 9000}
  - {name: any, port: 7000}
---
apiVersion: v1
kind: Service
metadata: {name: bare}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: tcp, port: 9001}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec:
  selector: {app: other}
  ports: [{name: http, port: 80}, {name: tcp, port: 9000}, {name: any, port: 7000}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.test]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {app: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [a.test]}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [a.test]
    tls: {mode: SIMPLE, credentialName: a}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: [b.test], tls: {mode: PASSTHROUGH}}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 9443, name: mutual, protocol: TLS}, hosts: ["*"], tls: {mode: ISTIO_MUTUAL}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: [a.test, b.test]
  gateways: [edge]
  http: [{route: [{destination: {host: web, port: {number: 80}}}]}]
  tls: [{match: [{sniHosts: [b.test]}], route: [{destination: {host: outside.test}}]}]
  tcp: [{route: [{destination: {host: web, port: {number: 9000}}}]}]
"""
ANOTHER = """
apiVersion: v1
kind: Service
metadata: {name: another}
spec: {selector: {app: web}, ports: [PORT]}
"""
RULES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rules}
spec:
  hosts: [other]
  http: [{timeout: 3s, route: [{destination: {host: other}}]}]
  tcp:
  - match: [{port: 9000}]
    route: [{destination: {host: other, port: {number: 9000}, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rules}
spec: {host: other, subsets: [{name: v1, labels: {version: v1}}]}
"""
BY_NAME = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: by-name}
spec:
  hosts: [outside.test, other]
  tls:
  - match: [{port: 443, sniHosts: [outside.test, other.test]}]
    route: [{destination: {host: other, port: {number: 9000}}}]
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: entry}
spec: {hosts: ["*.wild.test"], resolution: RESOLUTION, ports: [PORTS]}
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: aaa}
spec: {selector: {app: edge}, servers: [SERVER]}
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: MODE}}
"""


def workload(name: str, number: int = 1, **labels: str) -> Workload:
    return Workload(
        uid=f"default.{name}-{number}",
        name=f"{name}-{number}",
        namespace="default",
        netns=f"/run/meshd/netns/{name}-{number}",
        service_account=name,
        labels={"app": name, **labels},
        addresses=(f"198.18.{len(name)}.{number}",),
    )


WORKLOADS = (workload("web"), workload("other"), workload("edge"))


def compiled(objects: Objects, workloads: tuple[Workload, ...] = WORKLOADS) -> Compiled:
    read = [one.object for one in read_objects(yaml.safe_dump_all(objects.values()), "test.yaml")]
    # A host has the address that it had.
    addresses = {
        host: (f"198.19.0.{sum(host.encode()) % 250}",)
        for host in hosts_without_address(read, MeshOptions())
    }
    snapshot = build_snapshot(read, workloads, MeshOptions(), addresses)
    return as_messages(Compiler().compile(snapshot, [one.uid for one in WORKLOADS]))[Pool.TRAFFIC]


def kept(listener: Any) -> bytes:
    """What may not change, or all of its connections end."""
    copy = type(listener)()
    copy.CopyFrom(listener)
    for field in ("filter_chains", "default_filter_chain", "filter_chain_matcher"):
        copy.ClearField(field)
    return copy.SerializeToString(deterministic=True)


def chains(listener: Any) -> dict[str, bytes]:
    found = [*listener.filter_chains, listener.default_filter_chain]
    return {chain.name: chain.SerializeToString(deterministic=True) for chain in found}


def ended(before: Compiled, after: Compiled) -> set[str]:
    """Chains whose connections end, as ``LISTENER CHAIN``."""
    found: set[str] = set()
    for name, listener in before[Kind.LISTENER].items():
        now = after[Kind.LISTENER].get(name)
        same = now is not None and kept(now) == kept(listener)
        remaining = chains(now) if same else {}
        found |= {
            f"{name} {chain}"
            for chain, body in chains(listener).items()
            if chain and remaining.get(chain) != body
        }
    return found


def changed(which: str, change: Callable[[Any], Any]) -> Objects:
    """A copy of what there is in which one object is changed."""
    objects = parsed(BASE)
    change(objects[which]["spec"])
    return objects


def with_host(index: int) -> Objects:
    return changed("Gateway edge", lambda spec: spec["servers"][index]["hosts"].append("z.test"))


def with_server(index: int, port: int, protocol: str, **tls: str) -> Objects:
    named = {"number": port, "name": "new", "protocol": protocol}
    server = {"port": named, "hosts": ["n.test"]} | ({"tls": tls} if tls else {})
    return changed("Gateway edge", lambda spec: spec["servers"].insert(index, server))


def with_port(**port: Any) -> Objects:
    return changed("Service web", lambda spec: spec["ports"].append(port))


def more(text: str) -> Objects:
    return parsed(BASE) | parsed(text)


SIMPLE = {"mode": "SIMPLE", "credentialName": "z"}
CHANGES: dict[str, Objects] = {
    "a declared port more": with_port(name="http-new", port=81, targetPort=8081),
    "an undeclared port more": with_port(name="new", port=7001),
    "a TCP port more": with_port(name="tcp-new", port=9002),
    "an undeclared port at a number that others declare": with_port(name="n", port=9080),
    **{
        f"a service of port {port}": more(ANOTHER.replace("PORT", port))
        for port in (
            "{name: http, port: 80, targetPort: 8083}",
            "{name: any, port: 80, targetPort: 8083}",
            "{name: https, port: 443, targetPort: 8083}",
            "{name: any, port: 443, targetPort: 8083}",
            "{name: tls, port: 7000, targetPort: 8083}",
            "{name: http, port: 9000, targetPort: 8083}",
            "{name: any, port: 9000, targetPort: 8083}",
            "{name: grpc, port: 9000, targetPort: 8083}",
        )
    },
    **{
        f"an entry of {resolution} with {port}": more(
            ENTRY.replace("RESOLUTION", resolution).replace("PORTS", port)
        )
        for resolution in ("NONE", "DYNAMIC_DNS")
        for port in (
            "{number: 80, name: http, protocol: HTTP}",
            "{number: 443, name: tls, protocol: TLS}",
        )
    },
    "routes and rules of another service": more(RULES),
    "a host on a gateway's HTTP port": with_host(0),
    "a host on a gateway's HTTPS port": with_host(1),
    "a host of passed-through TLS": with_host(2),
    "a host on a gateway's TCP port": with_host(3),
    "a port of a gateway": with_server(0, port=8000, protocol="HTTP"),
    "a server of HTTP": with_server(0, port=80, protocol="HTTP"),
    "a server of HTTPS": with_server(0, port=443, protocol="HTTPS", **SIMPLE),
    "a Gateway more": more(
        GATEWAY.replace(
            "SERVER", "{port: {number: 80, name: http, protocol: HTTP}, hosts: [aaa.test]}"
        )
    ),
    "a Gateway that opens another port": more(
        GATEWAY.replace(
            "SERVER", "{port: {number: 81, name: http, protocol: HTTP}, hosts: [a.test]}"
        )
    ),
    "routes by server name": more(BY_NAME),
    "routes by server name of other ports": more(BY_NAME.replace("443", "9000")),
    "a policy that all may call": more(POLICY.replace("MODE", "PERMISSIVE")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_something_more_ends_no_connection(change: str) -> None:
    assert ended(compiled(parsed(BASE)), compiled(CHANGES[change])) == set()


@pytest.mark.parametrize(
    "change", [one for one in CHANGES if one.startswith("a Gateway") or "of a gateway" in one]
)
def test_taking_it_away_ends_its_own_connections_only(change: str) -> None:
    """Those of a port that nobody opens any more."""
    gone = ended(compiled(CHANGES[change]), compiled(parsed(BASE)))
    assert all("|gateway|8" in one and "|gateway|80 " not in one for one in gone), gone


@pytest.mark.parametrize(
    "change", [one for one in CHANGES if "service" in one or "port more" in one or "entry" in one]
)
def test_taking_a_service_away_ends_its_own_connections_only(change: str) -> None:
    """Those of chains that were there because of it."""
    without = compiled(parsed(BASE))
    known = {
        f"{name} {chain}"
        for name, listener in without[Kind.LISTENER].items()
        for chain in chains(listener)
    }
    assert ended(compiled(CHANGES[change]), without) & known == set()


@pytest.mark.parametrize("mode", ["STRICT", "DISABLE"])
def test_a_policy_ends_the_connections_that_it_forbids(mode: str) -> None:
    gone = ended(compiled(parsed(BASE)), compiled(more(POLICY.replace("MODE", mode))))
    forbidden = {"STRICT": "plain", "DISABLE": "mtls"}[mode]
    assert {one.rpartition(" ")[2].removesuffix("-inspected") for one in gone} == {forbidden}


def test_another_pod_behind_a_headless_service_ends_no_connection() -> None:
    before = compiled(parsed(BASE))
    assert ended(before, compiled(parsed(BASE), (*WORKLOADS, workload("web", 2)))) == set()
    fewer = ended(compiled(parsed(BASE), (*WORKLOADS, workload("web", 2))), before)
    assert fewer == set()


def test_a_workloads_labels_and_readiness_end_no_connection() -> None:
    relabelled = tuple(
        msgspec.structs.replace(one, labels={**one.labels, "version": "v2"}, ready=False)
        for one in WORKLOADS
    )
    assert ended(compiled(parsed(BASE)), compiled(parsed(BASE), relabelled)) == set()
