"""The bootstrap of an Envoy, from the settings. Pure; everything else comes over xDS.

https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/bootstrap/v3/bootstrap.proto
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from meshd.api.virtual_service.types import MAX_REGEX_PROGRAM
from meshd.model.buffers import CONNECTION_BUFFER, KIB
from meshd.model.capacity import Capacity
from meshd.model.pool import LIMITS, Pool
from meshd.proxy import overload
from meshd.proxy.pool import Member
from meshd.settings import MeshSettings, Paths, ProxySettings, Settings

Json = dict[str, Any]

XDS_CLUSTER: Final = "xds"
_TYPE: Final = "type.googleapis.com/"
_CONNECTION_LIMIT: Final = "envoy.resource_monitors.global_downstream_max_connections"
_HEAP: Final = "envoy.resource_monitors.fixed_heap"

_INTERNAL_LISTENERS: Final[Json] = {
    "name": "envoy.bootstrap.internal_listener",
    "typed_config": {
        "@type": f"{_TYPE}envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
        "buffer_size_kb": CONNECTION_BUFFER // KIB,
    },
}


_RUNTIME: Final = {
    # Users' regular expressions are checked before they get here.
    "re2.max_program_size.error_level": MAX_REGEX_PROGRAM,
    # What goes from one listener to another inside the proxy would be reset, unread data and all,
    # when its far end closes, as after each response with "connection: close".
    "envoy.reloadable_features.enable_send_rst_on_user_space_socket": False,
}
"""https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/operations/runtime"""

_LIMITS: Final[Json] = {
    "name": LIMITS,
    "rtds_layer": {
        "name": LIMITS,
        "rtds_config": {"ads": {}, "resource_api_version": "V3"},
    },
}
_OWN_OUTPUT: Final = "/proc/self/fd/1"
_CONFIG_OPTION: Final = "--config-path"
_UNUSED_STATS: Final = (
    # One per certificate and place of use, where meshd status tells when certificates expire.
    {"contains": ".ssl.certificate."},
    {"contains": ".ssl.ciphers."},
    {"contains": ".ssl.curves."},
    {"contains": ".ssl.sigalgs."},
    # Each secret's subscription: for every workload what is the same for all.
    {"prefix": "sds."},
    {"contains": "_ssl_socket_factory."},
    # Each worker's share of what is there as a sum.
    {"contains": ".worker_"},
    {"prefix": "vhost."},
    {"prefix": "runtime."},
    # The same connections are counted where they go on to.
    {"prefix": "tcp.inbound."},
    {"prefix": "tcp.outbound."},
    {"prefix": "udp.dns."},
    # Each listener keeps its own account of all of these, though all are shown as one.
    {
        "safe_regex": {
            "regex": r"listener\..*\.(connections_accepted_per_socket_event|extension_.*"
            r"|downstream_(cx_(destroy|length_ms|over.*|transport.*)|global.*|listener.*|pre.*)"
            r"|ssl\.(ocsp.*|no_certificate|was_.*|connection_.*|session_.*|versions.*))"
        }
    },
)
"""Names of metrics that are not kept, so that memory does not grow with them."""


def node_id(node: str, name: str) -> str:
    return f"{node}~{name}"


def member_name(node: str) -> str:
    """Return the member's name from a node id, or from itself."""
    return node.rpartition("~")[2]


def bootstrap(settings: Settings, paths: Paths, member: Member, capacity: Capacity) -> Json:
    socket, of_traffic = paths.admin_run / f"{member.name}.sock", member.pool is Pool.TRAFFIC
    return {
        # The cluster tells the xDS server which pool it is.
        "node": {"id": node_id(settings.node_name, member.name), "cluster": member.pool.value},
        "admin": {"address": {"pipe": {"path": str(socket), "mode": 0o660}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [_grpc_service(XDS_CLUSTER)],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {
            "clusters": [_unix_cluster(XDS_CLUSTER, paths.proxy_run / "xds.sock")],
        },
        "bootstrap_extensions": [_INTERNAL_LISTENERS] if of_traffic else [],
        **_resolvers(settings.mesh),
        **_fixed(capacity, limited=of_traffic),
    }


def _resolvers(mesh: MeshSettings) -> Json:
    """Return Envoy's resolvers for endpoints that are names: those of the settings, or the host's.

    Never meshd's own, which answer with addresses that only the mesh has.
    """
    if not mesh.upstreams:
        return {}
    return {
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": f"{_TYPE}envoy.extensions.network.dns_resolver.cares.v3"
                ".CaresDnsResolverConfig",
                "resolvers": [
                    {"socket_address": {"address": address, "port_value": port}}
                    for address, port in mesh.upstreams
                ],
                "dns_resolver_options": {"no_default_search_domain": True},
            },
        }
    }


def arguments(proxy: ProxySettings, pool: Pool, config: Path) -> tuple[str, ...]:
    """Return Envoy's command line after its name."""
    concurrency = proxy.concurrency if pool is Pool.TRAFFIC else 1
    return (
        *(_CONFIG_OPTION, str(config)),
        *("--concurrency", str(concurrency)),
        *("--drain-time-s", str(max(1, round(proxy.drain_time)))),
        *("--drain-strategy", "immediate"),
        "--disable-hot-restart",
        *("--log-level", proxy.log_level),
        # What it cannot write is lost. To stderr it would never write again after that.
        *("--log-path", _OWN_OUTPUT),
        *("--file-flush-interval-msec", "1000"),
        # The journal has the time and the process.
        *("--log-format", "[%l] [%n] %v"),
        # About fields that we set, and nobody who reads the log.
        "--skip-deprecated-logs",
    )


def config_of(command: Sequence[str]) -> str:
    """Return the bootstrap file that a command line names; empty if it is not a proxy's."""
    pairs = itertools.pairwise(command)
    return next((value for option, value in pairs if option == _CONFIG_OPTION), "")


def _fixed(capacity: Capacity, *, limited: bool) -> Json:
    """Return the part that does not depend on the node; ``limited``: its listeners have limits."""
    return {
        "overload_manager": _overload_manager(capacity),
        "layered_runtime": {
            # No admin layer: what the proxies do is changed by configuration alone.
            "layers": [
                {"name": "static", "static_layer": _RUNTIME},
                *([_LIMITS] if limited else []),
            ]
        },
        "stats_config": {"stats_matcher": {"exclusion_list": {"patterns": list(_UNUSED_STATS)}}},
        # A cluster's hundred metrics take memory only once it is used.
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        # Nobody reads metrics but through the admin socket.
        "stats_flush_on_admin": True,
    }


def _overload_manager(capacity: Capacity) -> Json:
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": _HEAP,
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.resource_monitors.fixed_heap.v3"
                    ".FixedHeapConfig",
                    "max_heap_size_bytes": capacity.heap,
                },
            },
            {
                "name": _CONNECTION_LIMIT,
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.resource_monitors.downstream_connections.v3"
                    ".DownstreamConnectionsConfig",
                    "max_active_downstream_connections": capacity.connections,
                },
            },
        ],
        "actions": overload.actions(_HEAP),
        "buffer_factory_config": overload.BUFFER_ACCOUNTS,
    }


def _grpc_service(cluster: str) -> Json:
    return {
        "envoy_grpc": {
            "cluster_name": cluster,
            # The other end is a process next door that may be restarting.
            "retry_policy": {"retry_back_off": {"base_interval": "0.2s", "max_interval": "2s"}},
        }
    }


def _unix_cluster(name: str, path: Path) -> Json:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    address = {"pipe": {"path": str(path)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {
                "@type": f"{_TYPE}{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
