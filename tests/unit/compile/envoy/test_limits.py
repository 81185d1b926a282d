"""Every way that a connection can take is bounded: what it holds, how long it takes to begin."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from meshd.api.read import read_objects
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.model.buffers import CONNECTION_BUFFER, CONNECTION_WINDOW, STREAM_WINDOW
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import HostService, Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.messages import as_messages

TCP_NOTSENT_LOWAT = 25
"""linux/tcp.h"""
CONFIGURATION = """
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 198.19.0.1
  selector: {app: web}
  ports:
  - {name: http, port: 80}
  - {name: grpc, port: 81}
  - {name: any, port: 82}
  - {name: tcp, port: 83}
  - {name: tls, port: 84}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ["*.example.com"]
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 80, name: http, protocol: HTTP}]
  resolution: DYNAMIC_DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: named}
spec:
  hosts: [www.example.com]
  ports: [{number: 8443, name: https, protocol: HTTPS}, {number: 8080, name: h2, protocol: HTTP2}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy:
    connectionPool: {http: {h2UpgradePolicy: UPGRADE, idleTimeout: 5s, http2MaxRequests: 9}}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {name: shown}
data: {tls.crt: QQ==, tls.key: QQ==}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: entry}
spec:
  selector: {app: gateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: ["*"]
    tls: {mode: SIMPLE, credentialName: shown}
  - {port: {number: 9443, name: tls, protocol: TLS}, hosts: ["*"], tls: {mode: ISTIO_MUTUAL}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: entry}
spec:
  hosts: ["*"]
  gateways: [entry]
  http: [{route: [{destination: {host: web, port: {number: 80}}}]}]
  tcp: [{route: [{destination: {host: web, port: {number: 83}}}]}]
---
"""
WORKLOADS = (
    Workload(
        uid="default.web",
        name="web",
        namespace="default",
        netns="/n/web",
        labels={"app": "web"},
        addresses=("198.18.0.1", "fd00:198::1"),
    ),
    Workload(
        uid="default.gateway",
        name="gateway",
        namespace="default",
        netns="/n/gateway",
        labels={"app": "gateway"},
        addresses=("198.18.0.2",),
    ),
    Workload(
        uid="default.unit",
        name="unit",
        namespace="default",
        netns="",
        host=HostService(cgroup="unit", outbound_port=15101, inbound_port=15102),
    ),
)


@pytest.fixture(scope="module", params=Pool)
def everything(request: pytest.FixtureRequest) -> Compiled:
    return compiled(request.param)


def compiled(pool: Pool = Pool.TRAFFIC) -> Compiled:
    objects = [read.object for read in read_objects(CONFIGURATION, "test.yaml")]
    snapshot = build_snapshot(objects, WORKLOADS, MeshOptions(), {})
    return as_messages(Compiler().compile(snapshot, snapshot.workloads))[pool]


def chains(found: Compiled) -> Iterator[Any]:
    for listener in found[Kind.LISTENER].values():
        yield from listener.filter_chains
        if listener.HasField("default_filter_chain"):
            yield listener.default_filter_chain


def managers(found: Compiled) -> list[Any]:
    made: list[Any] = []
    for chain in chains(found):
        for each in chain.filters:
            manager = http_connection_manager_pb2.HttpConnectionManager()
            if each.typed_config.Unpack(manager):
                made.append(manager)
    return made


def http2_options(cluster: Any) -> Iterator[Any]:
    options = http_protocol_options_pb2.HttpProtocolOptions()
    for packed in cluster.typed_extension_protocol_options.values():
        assert packed.Unpack(options)
        for kind in (options.explicit_http_config, options.use_downstream_protocol_config):
            if kind.HasField("http2_protocol_options"):
                yield kind.http2_protocol_options
        assert not options.use_downstream_protocol_config.ByteSize() or (
            options.use_downstream_protocol_config.HasField("http2_protocol_options")
        ), cluster.name


def test_each_listener_and_each_cluster_has_small_buffers(everything: Compiled) -> None:
    for kind in (Kind.LISTENER, Kind.CLUSTER):
        assert everything[kind]
        for name, message in everything[kind].items():
            assert message.per_connection_buffer_limit_bytes.value == CONNECTION_BUFFER, name


def test_http2_has_small_windows_on_both_sides() -> None:
    found = compiled()
    clusters = [one for each in found[Kind.CLUSTER].values() for one in http2_options(each)]
    clients = [manager.http2_protocol_options for manager in managers(found)]
    assert clusters
    assert clients
    for options in (*clusters, *clients):
        assert options.initial_stream_window_size.value == STREAM_WINDOW
        assert options.initial_connection_window_size.value == CONNECTION_WINDOW
    assert all(options.max_concurrent_streams.value for options in clients)


def test_headers_must_come_within_a_time_and_bodies_need_not() -> None:
    for manager in managers(compiled()):
        assert 0 < manager.request_headers_timeout.seconds <= 60
        assert manager.stream_flush_timeout.seconds > 0
        assert not manager.HasField("request_timeout")
        assert manager.stream_idle_timeout.ToTimedelta().total_seconds() == 0


def test_each_tls_handshake_must_end_within_a_time() -> None:
    encrypted = [
        chain
        for chain in chains(compiled())
        if isinstance(chain, listener_components_pb2.FilterChain)
        and chain.HasField("transport_socket")
    ]
    assert len(encrypted) >= 4  # mutual TLS of each workload, HTTPS and TLS of the gateway
    for chain in encrypted:
        assert 0 < chain.transport_socket_connect_timeout.seconds <= 60, chain.name


def test_the_kernel_keeps_little_for_a_socket_whose_other_side_is_not_read() -> None:
    found = compiled()
    listeners = {
        name: {one.name: one.int_value for one in listener.socket_options}
        for name, listener in found[Kind.LISTENER].items()
        if not listener.HasField("internal_listener")
    }
    for name, options in listeners.items():
        assert options[TCP_NOTSENT_LOWAT] <= 1 << 17, name
        # A peer on another host needs a window for the distance.
        assert (socket.SO_RCVBUF in options) == name.endswith("|outbound"), name
    for name, cluster in found[Kind.CLUSTER].items():
        if cluster.HasField("upstream_bind_config"):
            options = {one.name for one in cluster.upstream_bind_config.socket_options}
            assert TCP_NOTSENT_LOWAT in options, name
            assert (socket.SO_RCVBUF in options) == name.lower().startswith("inbound"), name
