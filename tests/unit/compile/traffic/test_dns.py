"""The way from a workload to the node's resolver."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import udp_proxy_pb2

from meshd.api.read import read_objects
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.compile.envoy.chains import chain as printed
from meshd.compile.traffic.dns import tcp_chain
from meshd.model.interception import RESOLVER_CONNECTIONS
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.messages import as_messages

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: mesh}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
"""
WORKLOAD = Workload(
    uid="mesh.web",
    name="web",
    namespace="mesh",
    netns="/run/netns/web",
    service_account="web",
    labels={"app": "web"},
    addresses=("198.18.0.1",),
)


def compiled(resolvers: dict[str, str] | None = None) -> Mapping[Pool, Compiled]:
    objects = [read.object for read in read_objects(SERVICE, "test.yaml")]
    addresses = {"web.mesh.svc.cluster.local": ("198.19.0.1",)}
    snapshot = build_snapshot(objects, [WORKLOAD], MeshOptions(dns_port=5353), addresses)
    snapshot = msgspec.structs.replace(snapshot, resolvers=resolvers or {})
    return as_messages(Compiler().compile(snapshot, [WORKLOAD.uid]))


def test_queries_go_from_the_namespace_to_the_resolvers_port() -> None:
    found = compiled()[Pool.DNS]
    listener = found[Kind.LISTENER]["mesh.web|dns"]
    place = listener.address.socket_address
    assert (place.network_namespace_filepath, place.port_value) == ("/run/netns/web", 15053)
    proxy = udp_proxy_pb2.UdpProxyConfig()
    (udp,) = listener.listener_filters
    assert udp.typed_config.Unpack(proxy)
    (group,) = found[Kind.CLUSTER][proxy.cluster].load_assignment.endpoints
    (end,) = group.lb_endpoints
    address = end.endpoint.address.socket_address
    assert (address.address, address.port_value) == ("127.0.0.1", 5353)


def test_proxies_do_not_answer_for_names_themselves() -> None:
    of_pools = [found[Kind.LISTENER].values() for found in compiled().values()]
    texts = [str(listener) for listeners in of_pools for listener in listeners]
    assert not any("dns_filter" in text or "web.mesh.svc" in text for text in texts if text)


def test_nothing_of_it_is_where_the_clusters_of_services_are() -> None:
    """Envoy's UDP proxy keeps something for each of them, and for each listener."""
    traffic, dns = (compiled()[pool] for pool in (Pool.TRAFFIC, Pool.DNS))
    assert not any(
        "udp_proxy" in str(listener.listener_filters)
        for listener in traffic[Kind.LISTENER].values()
    )
    assert list(dns[Kind.LISTENER]) == ["mesh.web|dns"]
    assert list(dns[Kind.CLUSTER]) == ["dns"]


@pytest.mark.parametrize(("namespace", "address"), [("mesh", "127.64.0.1"), ("other", "127.0.0.1")])
def test_queries_go_to_the_namespaces_own_resolver_where_there_is_one(
    namespace: str, address: str
) -> None:
    found = compiled({namespace: "127.64.0.1"})
    listener = found[Pool.DNS][Kind.LISTENER]["mesh.web|dns"]
    proxy = udp_proxy_pb2.UdpProxyConfig()
    assert listener.listener_filters[0].typed_config.Unpack(proxy)
    over_tcp = tcp_proxy_pb2.TcpProxy()
    scope = found[Pool.TRAFFIC][Kind.LISTENER]["outbound@mesh"]
    (chain,) = (one for one in scope.filter_chains if one.name == "dns")
    assert chain.filters[-1].typed_config.Unpack(over_tcp)
    for pool, cluster in ((Pool.DNS, proxy.cluster), (Pool.TRAFFIC, over_tcp.cluster)):
        (group,) = found[pool][Kind.CLUSTER][cluster].load_assignment.endpoints
        place = group.lb_endpoints[0].endpoint.address.socket_address
        assert (place.address, place.port_value) == (address, 5353)


@pytest.mark.parametrize("proxies", [1, 2, 3, 100, 300])
def test_one_namespace_never_has_all_connections_of_the_resolver(proxies: int) -> None:
    plan = tcp_chain("dns", MeshOptions(proxies=proxies))
    limit, _ = printed(plan).filters
    found = connection_limit_pb2.ConnectionLimit()
    assert limit.typed_config.Unpack(found)
    most = found.max_connections.value
    assert most > 0
    assert most * proxies <= max(RESOLVER_CONNECTIONS / 4, proxies)
