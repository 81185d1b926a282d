"""The compiler as a whole: what is there, what names what, and what a change touches."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from meshd.api.read import read_objects
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.compile.names import LOCAL, workload_of
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import NamedPort, Workload
from meshd.registry.registry import build_snapshot, hosts_without_address
from tests.unit.compile.messages import as_messages

NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
"""
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec:
  selector: {app: ratings}
  ports: [{name: tcp-db, port: 3306}, {name: http, port: 9080}, {name: any, port: 7000}]
---
"""
GATEWAY = """
apiVersion: v1
kind: Service
metadata: {name: ingress}
spec: {selector: {app: ingress}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: entry}
spec:
  selector: {app: ingress}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: ["*"]
  gateways: [entry]
  http: [{route: [{destination: {host: reviews}}]}]
---
"""


def workload(name: str, index: int, **values: Any) -> Workload:
    return Workload(
        uid=f"default.{name}-{index}",
        name=f"{name}-{index}",
        namespace="default",
        netns=f"/run/meshd/netns/{name}-{index}",
        service_account=name,
        labels={"app": name},
        addresses=(f"198.18.{len(name)}.{index}",),
        ports=(NamedPort("http", 9080),),
        **values,
    )


WORKLOADS = (workload("reviews", 1), workload("reviews", 2), workload("ratings", 1))


def snapshot(text: str = SERVICES, *workloads: Workload) -> Snapshot:
    objects = [read.object for read in read_objects(NAMESPACE + text, "test.yaml")]
    addresses = {
        host: (f"198.19.0.{index}",)
        for index, host in enumerate(hosts_without_address(objects, MeshOptions()), 1)
    }
    return build_snapshot(objects, workloads or WORKLOADS, MeshOptions(), addresses)


def compiled(taken: Snapshot, compiler: Compiler | None = None) -> Compiled:
    return as_messages((compiler or Compiler()).compile(taken, taken.workloads))[Pool.TRAFFIC]


NEAR = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}}}
---
"""


def placed(name: str, index: int, locality: str) -> Workload:
    found = workload(name, index)
    return msgspec.structs.replace(found, labels={**found.labels, "istio-locality": locality})


def test_clients_of_one_node_in_several_localities_have_their_own_order() -> None:
    everyone = (placed("reviews", 1, "us.a"), placed("reviews", 2, "eu.b"))
    found = compiled(snapshot(SERVICES + NEAR, *everyone))[Kind.ENDPOINT]
    first = {
        name: assignment.endpoints[0].locality.region
        for name, assignment in found.items()
        if "|9080||reviews" in name
    }

    assert first == {
        "outbound|9080||reviews.default.svc.cluster.local@~eu/b;near": "eu",
        "outbound|9080||reviews.default.svc.cluster.local@~us/a;near": "us",
    }


def test_localities_multiply_nothing_where_no_rule_asks_for_them() -> None:
    everyone = [placed("reviews", index, f"region{index}") for index in range(1, 6)]
    one, five = (compiled(snapshot(SERVICES, *some)) for some in (everyone[:1], everyone))

    for kind in (Kind.CLUSTER, Kind.ENDPOINT, Kind.ROUTE):
        assert set(one[kind]) == set(five[kind])


def test_names_are_looked_up_on_the_way_to_wildcards_that_ask_for_it_and_to_no_others() -> None:
    wild = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ["*.example.com"]
  resolution: DYNAMIC_DNS
  ports: [{number: 9080, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
---
"""
    found = compiled(snapshot(SERVICES + wild))
    hosts = {host.name: host for host in found[Kind.ROUTE]["9080@default"].virtual_hosts}
    asking = {
        name
        for name, host in hosts.items()
        for route in host.routes
        if "envoy.filters.http.dynamic_forward_proxy" in route.typed_per_filter_config
    }
    assert asking == {"*.example.com:9080"}
    listener = found[Kind.LISTENER]["outbound-inspected@default"]
    chains = {chain.name: [one.name for one in chain.filters] for chain in listener.filter_chains}
    assert chains["outbound|443||*.example.com"] == [
        "envoy.filters.network.sni_dynamic_forward_proxy",
        "envoy.filters.network.tcp_proxy",
    ]


def serialized(found: Compiled) -> dict[tuple[Kind, str], bytes]:
    return {
        (kind, name): message.SerializeToString(deterministic=True)
        for kind, messages in found.items()
        for name, message in messages.items()
    }


def filters_of(listener: Any) -> list[Any]:
    chains = [*listener.filter_chains, listener.default_filter_chain]
    return [filter_ for chain in chains for filter_ in chain.filters]


def clusters_named(listener: Any) -> set[str]:
    """By TCP proxies and by route configurations inside the listener."""
    names: set[str] = set()
    for filter_ in filters_of(listener):
        proxy = tcp_proxy_pb2.TcpProxy()
        manager = http_connection_manager_pb2.HttpConnectionManager()
        if filter_.typed_config.Unpack(proxy):
            names |= {proxy.cluster} - {""}
            names |= {part.name for part in proxy.weighted_clusters.clusters}
        elif filter_.typed_config.Unpack(manager):
            for host in manager.route_config.virtual_hosts:
                names |= {route.route.cluster for route in host.routes}
    return names


def routes_named(listener: Any) -> set[str]:
    names: set[str] = set()
    for filter_ in filters_of(listener):
        manager = http_connection_manager_pb2.HttpConnectionManager()
        if filter_.typed_config.Unpack(manager):
            names.add(manager.rds.route_config_name)
    return names - {""}


def test_whatever_a_listener_names_is_there() -> None:
    found = compiled(snapshot(SERVICES + GATEWAY, *WORKLOADS, workload("ingress", 1)))
    listeners = found[Kind.LISTENER].values()
    assert set().union(*map(clusters_named, listeners)) <= found[Kind.CLUSTER].keys()
    assert set().union(*map(routes_named, listeners)) == found[Kind.ROUTE].keys()


def test_workloads_that_open_connections_are_served_in_turn() -> None:
    found = compiled(snapshot(SERVICES + GATEWAY, *WORKLOADS, workload("ingress", 1)))
    turns = {
        name: listener.max_connections_to_accept_per_socket_event.value
        for name, listener in found[Kind.LISTENER].items()
        if not listener.HasField("internal_listener")
    }
    assert turns
    assert set(turns.values()) == {1}


def test_each_internal_cluster_leads_to_a_listener() -> None:
    found = compiled(snapshot())
    inside = {
        endpoint.endpoint.address.envoy_internal_address.server_listener_name
        for cluster in found[Kind.CLUSTER].values()
        for group in cluster.load_assignment.endpoints
        for endpoint in group.lb_endpoints
    } - {""}
    internal = {
        name
        for name, listener in found[Kind.LISTENER].items()
        if listener.HasField("internal_listener")
    }
    # Endpoints lead to the listener of the short way.
    assert inside | {LOCAL} == internal


def test_no_two_chains_of_a_listener_match_the_same() -> None:
    again = SERVICES.replace("name: ratings", "name: again").replace("name: reviews", "name: more")
    objects = [read.object for read in read_objects(NAMESPACE + SERVICES + again, "test.yaml")]
    # All services at one address, as a careless ServiceEntry would have it.
    one = dict.fromkeys(hosts_without_address(objects, MeshOptions()), ("198.19.0.1",))
    found = compiled(build_snapshot(objects, WORKLOADS, MeshOptions(), one))
    for listener in found[Kind.LISTENER].values():
        named = listener.HasField("filter_chain_matcher")
        matches = [
            chain.name if named else chain.filter_chain_match.SerializeToString()
            for chain in listener.filter_chains
        ]
        assert len(matches) == len(set(matches)), listener.name


def test_what_a_workload_adds_does_not_depend_on_how_many_services_there_are() -> None:
    many = "".join(SERVICES.replace("name: r", f"name: x{index}r") for index in range(20))

    def own(text: str) -> dict[str, int]:
        listeners = compiled(snapshot(text + SERVICES))[Kind.LISTENER]
        return {
            name: listener.ByteSize() for name, listener in listeners.items() if workload_of(name)
        }

    assert own(many) == own("")


def test_one_more_workload_changes_nothing_of_the_others() -> None:
    before, after = (
        serialized(compiled(snapshot(SERVICES, *WORKLOADS[:count]))) for count in (2, 3)
    )
    listeners = {key for key in before if key[0] is Kind.LISTENER and workload_of(key[1])}
    assert listeners
    assert all(before[key] == after[key] for key in listeners)


def test_readiness_changes_endpoints_only() -> None:
    resting = (msgspec.structs.replace(WORKLOADS[0], ready=False), *WORKLOADS[1:])
    before = serialized(compiled(snapshot(SERVICES, *WORKLOADS)))
    after = serialized(compiled(snapshot(SERVICES, *resting)))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {(Kind.ENDPOINT, "outbound|9080||reviews.default.svc.cluster.local")}


def test_unchanged_resources_are_the_same_objects() -> None:
    compiler = Compiler()
    before = compiled(snapshot(), compiler)
    after = compiled(snapshot(), compiler)
    for kind in (Kind.LISTENER, Kind.CLUSTER, Kind.ENDPOINT):
        same = [name for name, message in before[kind].items() if after[kind][name] is message]
        assert len(same) >= len(before[kind]) / 2, kind


def test_remembering_gives_what_compiling_anew_gives() -> None:
    texts = (SERVICES, SERVICES + GATEWAY, SERVICES.replace("port: 9080", "port: 9081"))
    compiler = Compiler()
    for one, other in itertools.permutations(texts, 2):
        compiled(snapshot(one), compiler)
        assert serialized(compiled(snapshot(other), compiler)) == serialized(
            compiled(snapshot(other))
        )


def test_only_served_workloads_have_listeners() -> None:
    taken = snapshot()
    for found in as_messages(Compiler().compile(taken, [WORKLOADS[0].uid])).values():
        owners = {workload_of(name) for name in found[Kind.LISTENER]} - {""}
        assert owners == {WORKLOADS[0].uid}


@pytest.mark.parametrize("ipv6", [True, False])
def test_a_listener_is_on_ipv6_wherever_the_kernel_speaks_it(ipv6: bool) -> None:
    taken = snapshot(SERVICES, WORKLOADS[0])
    options = msgspec.structs.replace(taken.options, ipv6=ipv6)
    found = compiled(msgspec.structs.replace(taken, options=options))
    listener: listener_pb2.Listener = found[Kind.LISTENER][f"{WORKLOADS[0].uid}|outbound"]
    assert bool(listener.additional_addresses) == ipv6


def test_no_listener_depends_on_what_further_addresses_a_workload_has() -> None:
    one = WORKLOADS[0]
    compiler = Compiler()
    before = as_messages(compiler.compile(snapshot(SERVICES, one), [one.uid]))
    further = ("198.18.99.1", "fd00:198::99")
    moved = msgspec.structs.replace(one, addresses=(*one.addresses, *further))
    after = as_messages(compiler.compile(snapshot(SERVICES, moved), [one.uid]))
    for pool, found in before.items():
        for name, listener in found[Kind.LISTENER].items():
            assert after[pool][Kind.LISTENER][name] == listener


def test_a_gateway_listens_on_the_port_behind_its_service() -> None:
    ingress = workload("ingress", 1)
    found = compiled(snapshot(SERVICES + GATEWAY, ingress))
    listener = found[Kind.LISTENER][f"{ingress.uid}|gateway|8080"]
    assert listener.address.socket_address.port_value == 8080
    (routes,) = routes_named(listener)
    hosts = found[Kind.ROUTE][routes].virtual_hosts
    assert hosts[0].routes[0].route.cluster == "outbound|9080||reviews.default.svc.cluster.local"


@pytest.mark.parametrize("held", [2**32 - 1, 5000])
def test_no_cluster_but_by_rule_has_a_limit_below_what_a_proxy_holds(held: int) -> None:
    taken = snapshot(SERVICES + GATEWAY, *WORKLOADS, workload("ingress", 1))
    options = msgspec.structs.replace(taken.options, upstream_connections=held)
    found = compiled(msgspec.structs.replace(taken, options=options))
    for name, cluster in found[Kind.CLUSTER].items():
        limits = [one.max_connections.value for one in cluster.circuit_breakers.thresholds]
        inside = name.startswith(("inbound", "outbound", "local")) and "|" not in name
        assert name == "BlackHoleCluster" or limits == [2**32 - 1 if inside else held], name
