"""Every kind of cluster and route configuration that is on record is one that Envoy accepts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import envoy
import msgspec
import pytest
import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, grpc_service_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from google.protobuf import json_format

from meshd.api.base import decode_scalar
from meshd.api.networking import DestinationRule, VirtualService
from meshd.compile.envoy.clusters import cluster
from meshd.compile.envoy.routes import route_table as printed_routes
from meshd.compile.envoy.wellknown import packed, socket_address
from meshd.compile.http.routes import http_ports, route_table
from meshd.compile.plan.tls import PLAIN
from meshd.compile.upstream.upstreams import black_hole, passthrough, service_upstreams
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import Snapshot

ENVOY = Path(envoy.__path__[0]) / "_bin" / "envoy"
GOLDEN = Path(__file__).parents[2] / "unit" / "compile" / "golden"


class Recorded(msgspec.Struct):
    """What of a golden input matters here."""

    scopes: tuple[Scope, ...]
    services: tuple[ServiceRecord, ...]
    virtual_services: tuple[VirtualService, ...] = ()
    destination_rules: tuple[DestinationRule, ...] = ()


def _views(name: str) -> list[View]:
    text = (GOLDEN / name / "input.yaml").read_text()
    recorded = msgspec.convert(yaml.safe_load(text), Recorded, dec_hook=decode_scalar)
    index = MeshIndex.of(
        Snapshot(
            services={service.host: service for service in recorded.services},
            virtual_services=recorded.virtual_services,
            destination_rules=recorded.destination_rules,
        )
    )
    return [View.of(index, scope) for scope in recorded.scopes]


def _clusters(views: list[View]) -> Iterator[Any]:
    named = {
        str(upstream.name): cluster(msgspec.structs.replace(upstream, tls=PLAIN, proxy_protocol=""))
        for view in views
        for host, service in view.services.items()
        for upstream in service_upstreams(service, view.rules(host), view.options)
    }
    yield from named.values()
    yield cluster(black_hole(views[0].options))
    yield cluster(passthrough(views[0].options))


def _listener(name: str, routes: Any) -> Any:
    filters = {
        "cors": cors_pb2.Cors(),
        "fault": fault_pb2.HTTPFault(),
        "router": router_pb2.Router(),
    }
    manager = manager_pb2.HttpConnectionManager(
        stat_prefix=name,
        route_config=routes,
        http_filters=[
            manager_pb2.HttpFilter(name=f"envoy.filters.http.{kind}", typed_config=packed(config))
            for kind, config in filters.items()
        ],
    )
    network_filter = listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=packed(manager)
    )
    return listener_pb2.Listener(
        name=name,
        address=socket_address("127.0.0.1", 0),
        filter_chains=[listener_components_pb2.FilterChain(filters=[network_filter])],
    )


def _bootstrap(views: list[View]) -> Any:
    ads = config_source_pb2.ApiConfigSource(
        api_type=config_source_pb2.ApiConfigSource.DELTA_GRPC,
        transport_api_version=config_source_pb2.ApiVersion.V3,
        grpc_services=[
            grpc_service_pb2.GrpcService(
                envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name="xds")
            )
        ],
    )
    return bootstrap_pb2.Bootstrap(
        node=base_pb2.Node(id="clusters", cluster="clusters"),
        dynamic_resources=bootstrap_pb2.Bootstrap.DynamicResources(ads_config=ads),
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            clusters=[
                cluster_pb2.Cluster(name="xds", type=cluster_pb2.Cluster.STATIC),
                *_clusters(views),
            ],
            listeners=[
                _listener(f"{view.scope.name}-{port}", printed_routes(route_table(view, port)))
                for view in views
                for port in http_ports(view)
            ],
        ),
    )


@pytest.mark.parametrize("name", sorted(entry.name for entry in GOLDEN.iterdir()))
def test_envoy_accepts_what_is_on_record(name: str, tmp_path: Path) -> None:
    config = tmp_path / "envoy.json"
    config.write_text(json_format.MessageToJson(_bootstrap(_views(name))))
    checked = subprocess.run(
        [str(ENVOY), "--mode", "validate", "--config-path", str(config), "--log-level", "warning"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
    assert "deprecated" not in checked.stderr.lower()
