"""Prints HTTP connection managers: those of clients, of servers and of gateways."""

from __future__ import annotations

import functools
import itertools
from typing import Final, Literal

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from meshd.compile.envoy import authorization, dynamic_dns, limits, table_choice
from meshd.compile.envoy.access_log import access_logs, policy_logs
from meshd.compile.envoy.idempotence import FILTER, NOT_SENT, idempotence_filter
from meshd.compile.envoy.wellknown import extension, filter_, over_ads, packed, seconds, true
from meshd.compile.plan.chains import AccessLog, Http

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
_LOOKALIKES: Final = tuple(
    "x{}forwarded{}client{}cert".format(*signs)
    for signs in itertools.product("-_", repeat=3)
    if "_" in signs
)
"""Names that CGI and WSGI (RFC 3875, section 4.1.18) do not tell from x-forwarded-client-cert."""
SERVER_NAME: Final = "istio-envoy"
"""What ``server:`` says behind Istio; scripts look for it."""
ROUTER: Final = "envoy.filters.http.router"


def connection_manager(target: Http) -> listener_components_pb2.Filter:
    """Return the manager of a chain's requests."""
    manager = _Manager()
    manager.CopyFrom(
        _alike(target.access_log, target.certificate, target.scheme, target.applies_routes)
    )
    manager.stat_prefix = target.statistics
    if target.is_judged:
        judging = authorization.filters(target.asks)
        others = list(manager.http_filters)
        del manager.http_filters[:]
        manager.http_filters.extend((*judging, *others))
        if target.access_log != "off":
            manager.access_log.extend(policy_logs())
    if target.by_server:
        manager.MergeFrom(_of_server())
    if target.scope:
        manager.scoped_routes.CopyFrom(table_choice.tables_by_port(target.scope))
        manager.early_header_mutation_extensions.append(table_choice.asking())
    else:
        routes = http_connection_manager_pb2.Rds(
            config_source=over_ads(), route_config_name=target.routes
        )
        manager.rds.CopyFrom(routes)
    if target.http10:
        manager.http_protocol_options.accept_http_10 = True
        manager.http_protocol_options.default_host_for_http_10 = "localhost"
    return filter_("envoy.filters.network.http_connection_manager", manager)


@functools.lru_cache(maxsize=64)
def _alike(
    access_log: AccessLog,
    certificate: Literal["remove", "keep", "replace"],
    scheme: str,
    applies_routes: bool,
) -> http_connection_manager_pb2.HttpConnectionManager:
    """Return what many managers have in common. It is shared: copy, never change."""
    manager = _Manager(
        http_filters=filters(applies_routes=applies_routes),
        forward_client_cert_details=_CERTIFICATES[certificate],
    )
    manager.MergeFrom(base_manager(access_log))
    if scheme:
        manager.use_remote_address.value = True
        manager.scheme_header_transformation.scheme_to_overwrite = scheme
    if certificate == "replace":
        manager.set_current_client_cert_details.CopyFrom(
            _Manager.SetCurrentClientCertDetails(subject=true(), cert=True, dns=True, uri=True)
        )
    return manager


_CERTIFICATES: Final = {
    "remove": _Manager.SANITIZE,
    "keep": _Manager.ALWAYS_FORWARD_ONLY,
    "replace": _Manager.SANITIZE_SET,
}


@functools.cache
def base_manager(access_log: AccessLog) -> http_connection_manager_pb2.HttpConnectionManager:
    """Return what all managers have. It is shared: copy, never change."""
    return _Manager(
        codec_type=_Manager.AUTO,
        access_log=access_logs(access_log),
        generate_request_id=true(),
        # Only the application can say whether it wants the body.
        proxy_100_continue=True,
        early_header_mutation_extensions=[_without_claims()],
        normalize_path=true(),
        strip_trailing_host_dot=True,
        stream_idle_timeout=seconds(0),
        stream_flush_timeout=seconds(limits.FLUSH_TIMEOUT),
        request_headers_timeout=seconds(limits.HEADERS_TIMEOUT),
        upgrade_configs=[_Manager.UpgradeConfig(upgrade_type="websocket")],
        server_name=SERVER_NAME,
        http2_protocol_options=limits.http2(limits.MAX_STREAMS),
    )


@functools.cache
def _of_server() -> http_connection_manager_pb2.HttpConnectionManager:
    """Return what managers of requests to an application add. It is shared."""
    return _Manager(
        server_header_transformation=_Manager.PASS_THROUGH,
        local_reply_config=_says_what_was_not_sent(),
        preserve_external_request_id=True,
        # A client's proxy that speaks HTTP/2 here has its client's WebSockets in it.
        http2_protocol_options=limits.http2(limits.MAX_STREAMS, allow_connect=True),
    )


def _without_claims() -> extension_pb2.TypedExtensionConfig:
    """Return the filter that removes headers by which a request would control the router, or would
    pass for a header of the proxy's.

    Envoy obeys the former for any client that claims a private address in x-forwarded-for.
    """
    mutation = mutation_rules_pb2.HeaderMutation
    names = (*(f"x-envoy-{name}" for name in _CONTROL), *_LOOKALIKES)
    return extension(
        "envoy.http.early_header_mutation.header_mutation",
        header_mutation_pb2.HeaderMutation(mutations=[mutation(remove=name) for name in names]),
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


def filters(*, applies_routes: bool = False) -> list[http_connection_manager_pb2.HttpFilter]:
    """Return the filters; ``applies_routes``: with those that carry out routes."""
    http_filter = http_connection_manager_pb2.HttpFilter
    filters: list[http_connection_manager_pb2.HttpFilter] = []
    if applies_routes:
        filters += [
            http_filter(name="envoy.filters.http.cors", typed_config=packed(cors_pb2.Cors())),
            http_filter(
                name="envoy.filters.http.fault", typed_config=packed(fault_pb2.HTTPFault())
            ),
            http_filter(name=FILTER, typed_config=packed(idempotence_filter())),
            dynamic_dns.http_filter(),
        ]
    router = router_pb2.Router()
    return [*filters, http_filter(name=ROUTER, typed_config=packed(router))]
