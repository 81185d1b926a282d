"""HTTP connection managers of clients, servers and gateways."""

from __future__ import annotations

from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from meshd.compile.envoy import limits
from meshd.compile.envoy.wellknown import extension, filter_, over_ads, packed, seconds, true
from meshd.compile.http.idempotence import FILTER, NOT_SENT, idempotence_filter
from meshd.compile.http.inbound_routes import plain_routes
from meshd.compile.names import InboundCluster
from meshd.compile.telemetry.access_log import access_logs
from meshd.compile.upstream import dynamic_dns
from meshd.model.snapshot import MeshOptions

_Manager = http_connection_manager_pb2.HttpConnectionManager
_CONTROL: Final = (
    "expected-rq-timeout-ms",
    "force-trace",
    "hedge-on-per-try-timeout",
    "ip-tags",
    "max-retries",
    "original-dst-host",
    "retriable-header-names",
    "retriable-status-codes",
    "retry-grpc-on",
    "retry-on",
    "upstream-alt-stat-name",
    "upstream-rq-per-try-timeout-ms",
    "upstream-rq-timeout-alt-response",
    "upstream-rq-timeout-ms",
    "upstream-stream-duration-ms",
)
"""https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/http/http_filters/router_filter."""
SERVER_NAME: Final = "istio-envoy"
"""What ``server:`` says behind Istio; scripts look for it."""
_ROUTER: Final = "envoy.filters.http.router"


def client_manager(
    stat_prefix: str, routes: str, options: MeshOptions
) -> listener_components_pb2.Filter:
    """Return the manager of a workload's outgoing requests; ``routes`` names the route
    configuration."""
    parts = _Manager(
        stat_prefix=stat_prefix,
        rds=_routes(routes),
        http_filters=_filters(of_client=True),
        http_protocol_options=_http1(http10=options.accept_http_10),
        forward_client_cert_details=_Manager.SANITIZE,
    )
    return _manager(options, parts)


def server_manager(
    cluster: InboundCluster, options: MeshOptions, *, mutual_tls: bool, http10: bool = False
) -> listener_components_pb2.Filter:
    """Return the manager of requests to a workload's own port.

    The application sees its caller in ``x-forwarded-client-cert``, which cannot be forged: it is
    removed from requests of callers without a certificate, and written by the routes for others.
    """
    parts = _Manager(
        stat_prefix=f"inbound_{cluster.port}",
        http_filters=_filters(),
        server_header_transformation=_Manager.PASS_THROUGH,
        local_reply_config=_says_what_was_not_sent(),
        http_protocol_options=_http1(http10=http10 or options.accept_http_10),
        preserve_external_request_id=True,
        # A client's proxy that speaks HTTP/2 here has its client's WebSockets in it.
        http2_protocol_options=limits.http2(limits.MAX_STREAMS, allow_connect=True),
    )
    if mutual_tls:
        parts.rds.CopyFrom(_routes(str(cluster)))
        parts.forward_client_cert_details = _Manager.ALWAYS_FORWARD_ONLY
    else:
        parts.route_config.CopyFrom(plain_routes(cluster))
    return _manager(options, parts)


def gateway_manager(
    stat_prefix: str, routes: str, options: MeshOptions, *, tls: bool
) -> listener_components_pb2.Filter:
    """Return the manager of requests from outside the mesh: the client's claims are not trusted."""
    parts = _Manager(
        stat_prefix=stat_prefix,
        rds=_routes(routes),
        http_filters=_filters(of_client=True),
        use_remote_address=true(),
        http_protocol_options=_http1(http10=options.accept_http_10),
        forward_client_cert_details=_Manager.SANITIZE_SET,
        set_current_client_cert_details=_Manager.SetCurrentClientCertDetails(
            subject=true(), cert=True, dns=True, uri=True
        ),
        scheme_header_transformation=protocol_pb2.SchemeHeaderTransformation(
            scheme_to_overwrite="https" if tls else "http"
        ),
    )
    return _manager(options, parts)


def copies_manager(
    stat_prefix: str,
    routes: route_pb2.RouteConfiguration,
    http_filters: list[http_connection_manager_pb2.HttpFilter],
    options: MeshOptions,
) -> listener_components_pb2.Filter:
    """Return the manager of copies of requests, which were judged when they came and are sent
    unchanged."""
    router = packed(router_pb2.Router())
    router_filter = http_connection_manager_pb2.HttpFilter(name=_ROUTER, typed_config=router)
    parts = _Manager(
        stat_prefix=stat_prefix,
        route_config=routes,
        http_filters=[*http_filters, router_filter],
        forward_client_cert_details=_Manager.ALWAYS_FORWARD_ONLY,
        preserve_external_request_id=True,
    )
    return _manager(options, parts)


def _manager(
    options: MeshOptions, parts: http_connection_manager_pb2.HttpConnectionManager
) -> listener_components_pb2.Filter:
    """Return the filter with ``parts``, and what all managers have besides."""
    manager = _Manager(
        codec_type=_Manager.AUTO,
        access_log=access_logs(options),
        generate_request_id=true(),
        # Only the application can say whether it wants the body.
        proxy_100_continue=True,
        early_header_mutation_extensions=[_without_control()],
        normalize_path=true(),
        strip_trailing_host_dot=True,
        stream_idle_timeout=seconds(0),
        stream_flush_timeout=seconds(limits.FLUSH_TIMEOUT),
        request_headers_timeout=seconds(limits.HEADERS_TIMEOUT),
        upgrade_configs=[_Manager.UpgradeConfig(upgrade_type="websocket")],
        server_name=SERVER_NAME,
        http2_protocol_options=limits.http2(limits.MAX_STREAMS),
    )
    manager.MergeFrom(parts)
    return filter_("envoy.filters.network.http_connection_manager", manager)


def _http1(*, http10: bool) -> protocol_pb2.Http1ProtocolOptions | None:
    """Return options of HTTP/1; ``http10``: also HTTP/1.0, in which a request may have no host."""
    if not http10:
        return None
    return protocol_pb2.Http1ProtocolOptions(
        accept_http_10=True, default_host_for_http_10="localhost"
    )


def _without_control() -> extension_pb2.TypedExtensionConfig:
    """Return the filter that removes headers by which a request would control the router.

    Envoy obeys them for any client that claims a private address in x-forwarded-for.
    """
    mutation = mutation_rules_pb2.HeaderMutation
    mutations = [mutation(remove=f"x-envoy-{name}") for name in _CONTROL]
    return extension(
        "envoy.http.early_header_mutation.header_mutation",
        header_mutation_pb2.HeaderMutation(mutations=mutations),
    )


def _says_what_was_not_sent() -> http_connection_manager_pb2.LocalReplyConfig:
    could_not_connect = accesslog_pb2.AccessLogFilter(
        response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=["UF"])
    )
    header = base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=NOT_SENT, value="true"),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    mapper = http_connection_manager_pb2.ResponseMapper(
        filter=could_not_connect, headers_to_add=[header]
    )
    return http_connection_manager_pb2.LocalReplyConfig(mappers=[mapper])


def _routes(name: str) -> http_connection_manager_pb2.Rds:
    return http_connection_manager_pb2.Rds(config_source=over_ads(), route_config_name=name)


def _filters(*, of_client: bool = False) -> list[http_connection_manager_pb2.HttpFilter]:
    """Return the filters; ``of_client``: with those that carry out routes."""
    http_filter = http_connection_manager_pb2.HttpFilter
    filters: list[http_connection_manager_pb2.HttpFilter] = []
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
