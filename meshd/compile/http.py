# pyright: reportAttributeAccessIssue=false
"""HTTP connection managers: of a client's side, of a server's side and of a gateway."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)

from meshd.compile import dynamic_dns, limits
from meshd.compile.access_log import access_logs
from meshd.compile.idempotence import FILTER, idempotence_filter
from meshd.compile.inbound_routes import plain_routes
from meshd.compile.names import InboundCluster
from meshd.compile.wellknown import (
    filter_,
    over_ads,
    packed,
    seconds,
    true,
)
from meshd.model.snapshot import MeshOptions

_Manager = http_connection_manager_pb2.HttpConnectionManager
SERVER_NAME: Final = "istio-envoy"
"""What ``server:`` says behind Istio; scripts look for it."""
_ROUTER: Final = "envoy.filters.http.router"


def client_manager(stat_prefix: str, routes: str, options: MeshOptions) -> Any:
    """For a workload's outgoing requests; ``routes`` names the route configuration."""
    return _manager(
        options,
        stat_prefix=stat_prefix,
        rds=_routes(routes),
        http_filters=_filters(of_client=True),
        forward_client_cert_details=_Manager.SANITIZE,
    )


def server_manager(cluster: InboundCluster, options: MeshOptions, *, mutual_tls: bool) -> Any:
    """For requests to a workload's own port.

    The application sees who called in ``x-forwarded-client-cert``, which nobody can forge: it is
    taken away from whoever showed no certificate, and the routes write it for whoever did.
    """
    return _manager(
        options,
        stat_prefix=f"inbound_{cluster.port}",
        http_filters=_filters(),
        **(
            {
                "rds": _routes(str(cluster)),
                "forward_client_cert_details": _Manager.ALWAYS_FORWARD_ONLY,
            }
            if mutual_tls
            else {
                "route_config": plain_routes(cluster),
                "forward_client_cert_details": _Manager.SANITIZE,
            }
        ),
        server_header_transformation=_Manager.PASS_THROUGH,
        preserve_external_request_id=True,
        # A client's proxy that speaks HTTP/2 here has its client's WebSockets in it.
        http2_protocol_options=limits.http2(limits.MAX_STREAMS, allow_connect=True),
    )


def gateway_manager(stat_prefix: str, routes: str, options: MeshOptions, *, tls: bool) -> Any:
    """For requests from outside the mesh: what the client claims about itself is not trusted."""
    return _manager(
        options,
        stat_prefix=stat_prefix,
        rds=_routes(routes),
        http_filters=_filters(of_client=True),
        use_remote_address=true(),
        forward_client_cert_details=_Manager.SANITIZE_SET,
        set_current_client_cert_details=_Manager.SetCurrentClientCertDetails(
            subject=true(), cert=True, dns=True, uri=True
        ),
        server_name=SERVER_NAME,
        scheme_header_transformation=protocol_pb2.SchemeHeaderTransformation(
            scheme_to_overwrite="https" if tls else "http"
        ),
    )


def copies_manager(
    stat_prefix: str, routes: Any, http_filters: list[Any], options: MeshOptions
) -> Any:
    """For copies of requests, which were judged when they came: they are sent on as they are."""
    router = packed(router_pb2.Router())
    router_filter = http_connection_manager_pb2.HttpFilter(name=_ROUTER, typed_config=router)
    return _manager(
        options,
        stat_prefix=stat_prefix,
        route_config=routes,
        http_filters=[*http_filters, router_filter],
        forward_client_cert_details=_Manager.ALWAYS_FORWARD_ONLY,
        preserve_external_request_id=True,
    )


def _manager(options: MeshOptions, **parts: Any) -> Any:
    return filter_(
        "envoy.filters.network.http_connection_manager",
        _Manager(
            codec_type=_Manager.AUTO,
            access_log=access_logs(options),
            generate_request_id=true(),
            normalize_path=true(),
            strip_trailing_host_dot=True,
            stream_idle_timeout=seconds(0),
            stream_flush_timeout=seconds(limits.FLUSH_TIMEOUT),
            request_headers_timeout=seconds(limits.HEADERS_TIMEOUT),
            upgrade_configs=[_Manager.UpgradeConfig(upgrade_type="websocket")],
            **{
                "server_name": SERVER_NAME,
                "http2_protocol_options": limits.http2(limits.MAX_STREAMS),
                **parts,
            },
        ),
    )


def _routes(name: str) -> Any:
    return http_connection_manager_pb2.Rds(config_source=over_ads(), route_config_name=name)


def _filters(*, of_client: bool = False) -> list[Any]:
    """``of_client``: with those that carry out what the routes say."""
    http_filter = http_connection_manager_pb2.HttpFilter
    filters: list[Any] = []
    if of_client:
        filters += [
            http_filter(name="envoy.filters.http.cors", typed_config=packed(cors_pb2.Cors())),
            http_filter(
                name="envoy.filters.http.fault", typed_config=packed(fault_pb2.HTTPFault())
            ),
            http_filter(name=FILTER, typed_config=packed(idempotence_filter())),
            dynamic_dns.http_filter(),
        ]
    router = router_pb2.Router()
    return [*filters, http_filter(name=_ROUTER, typed_config=packed(router))]
