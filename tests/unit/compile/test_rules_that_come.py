"""A DestinationRule that comes ends no connection, whatever it says and in whichever namespace.

Services, clients and a gateway are in three namespaces.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from meshd.api.read import read_objects
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot, hosts_without_address
from tests.unit.compile.messages import as_messages
from tests.unit.compile.test_lasting import chains, ended, workload

BASE = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: servers}
spec:
  selector: {app: db}
  clusterIP: 198.19.1.1
  ports: [{name: tcp, port: 9000}, {name: any, port: 7000}, {name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: servers}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 9001}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky, namespace: servers}
spec:
  selector: {app: db}
  clusterIP: 198.19.1.2
  sessionAffinity: ClientIP
  ports: [{name: tcp, port: 9000}]
---
apiVersion: v1
kind: Service
metadata:
  name: near
  namespace: servers
spec:
  selector: {app: db}
  clusterIP: 198.19.1.3
  trafficDistribution: PreferSameZone
  ports: [{name: tcp, port: 9000}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: servers}
spec:
  hosts: ["*.wild.test"]
  resolution: DYNAMIC_DNS
  ports: [{number: 443, name: tls, protocol: TLS}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shares, namespace: servers}
spec:
  hosts: [db]
  tcp:
  - match: [{port: 9000}]
    route:
    - {destination: {host: db, port: {number: 9000}}, weight: 60}
    - {destination: {host: sticky, port: {number: 9000}}, weight: 40}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: gateways}
spec:
  selector: {app: edge}
  servers:
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: [p.test], tls: {mode: PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: gateways}
spec:
  hosts: ["*"]
  gateways: [edge]
  tcp: [{route: [{destination: {host: sticky.servers.svc.cluster.local}}]}]
  tls:
  - match: [{sniHosts: [p.test]}]
    route: [{destination: {host: db.servers.svc.cluster.local, port: {number: 7000}}}]
"""
RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: NAME, namespace: SPACE}
spec: {host: "HOST", SPEC}
"""
SPECS = {
    "limits": "trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}}",
    "ejection": "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}",
    "idle": "trafficPolicy: {connectionPool: {tcp: {maxConnections: 9, idleTimeout: 9s}}}",
    "hash": "trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}",
    "tunnel": "trafficPolicy: {tunnel: {targetHost: a.test, targetPort: 443}}",
    "port": "trafficPolicy: {portLevelSettings: [{port: {number: 9000}, connectionPool: {tcp: "
    "{maxConnections: 9, idleTimeout: 9s}}}]}",
    "subset": "subsets: [{name: v1, labels: {version: v1}}]",
    "private": 'exportTo: ["."], trafficPolicy: {loadBalancer: {simple: RANDOM}}',
}
HOSTS = (
    "db.servers.svc.cluster.local",
    "sticky.servers.svc.cluster.local",
    "*.svc.cluster.local",
    "*.wild.test",
)
SPACES = ("servers", "clients", "gateways", "istio-system")


def within(namespace: str, one: Workload) -> Workload:
    return msgspec.structs.replace(one, namespace=namespace, uid=f"{namespace}.{one.name}")


WORKLOADS = (
    within("servers", workload("db")),
    within("clients", workload("client")),
    within("gateways", workload("edge")),
)


def rule(name: str, space: str, host: str = HOSTS[0]) -> str:
    filled = RULE.replace("NAME", name).replace("SPACE", space).replace("HOST", host)
    return filled.replace("SPEC", SPECS[name])


def compiled(*rules: str) -> Compiled:
    read = [one.object for one in read_objects(BASE + "".join(rules), "test.yaml")]
    options = MeshOptions()
    addresses = {
        host: (f"198.19.0.{sum(host.encode()) % 250}",)
        for host in hosts_without_address(read, options)
    }
    snapshot = build_snapshot(read, WORKLOADS, options, addresses)
    served = [one.uid for one in WORKLOADS]
    return as_messages(Compiler().compile(snapshot, served))[Pool.TRAFFIC]


def bodies(found: Compiled) -> Mapping[tuple[str, str], bytes]:
    """Of all chains, by listener and name."""
    listeners = found[Kind.LISTENER].items()
    return {(name, one): body for name, each in listeners for one, body in chains(each).items()}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", SPECS)
def test_a_rule_that_comes_ends_no_connection(name: str, space: str) -> None:
    before = compiled()
    for host in HOSTS:
        assert ended(before, compiled(rule(name, space, host))) == set(), host


def test_new_connections_go_by_the_rule() -> None:
    """Only those that were there stay on the former chain: no question leads to it."""
    listener = compiled(rule("limits", "clients"))[Kind.LISTENER]["outbound-inspected@clients"]
    former, now = "outbound|7000||db.servers.svc.cluster.local", "@clients/limits+clients"
    assert {former, former + now} <= chains(listener).keys()
    tree = str(listener.filter_chain_matcher)
    assert former + now in tree
    assert tree.count(former) == tree.count(former + now)


def test_a_rule_that_goes_ends_only_what_it_had() -> None:
    before = compiled()
    ruled = compiled(rule("limits", "servers"))
    assert bodies(before).items() <= bodies(ruled).items()
    gone = {chain for _, chain in bodies(ruled).keys() - bodies(before).keys()}
    assert gone
    assert all("@" in chain for chain in gone), gone
