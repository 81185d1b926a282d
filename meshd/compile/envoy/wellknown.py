"""Envoy's building blocks that every listener and cluster is made of. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from envoy.config.core.v3 import (
    address_pb2,
    config_source_pb2,
    extension_pb2,
    socket_option_pb2,
    substitution_format_string_pb2,
)
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.local_address_selectors.filter_state_override.v3 import config_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2
from google.protobuf.message import Message

from meshd.compile.envoy.limits import socket_options
from meshd.model.interception import PROXY_INBOUND_MARK, PROXY_MARK
from meshd.protos import listener_filter_state_pb2, network_filter_state_pb2

_SOL_SOCKET: Final = 1
_SO_MARK: Final = 36
_NETWORK_FILTER_STATE: Final = (
    "type.googleapis.com/" + set_filter_state_pb2.Config.DESCRIPTOR.full_name
)

NETNS_STATE: Final = "envoy.network.upstream_bind_override.network_namespace"
"""Filter state: the namespace from which upstream connections are opened."""
SECRET_STATE: Final = "envoy.tls.certificate_mappers.on_demand_secret"  # noqa: S105
"""Filter state: the secret whose certificate upstream connections present."""
ALPN_STATE: Final = "envoy.network.application_protocols"
LOCAL_ADDRESS_STATE: Final = "envoy.filters.listener.original_dst.local_ip"
REMOTE_ADDRESS_STATE: Final = "envoy.filters.listener.original_dst.remote_ip"
PEER_STATE: Final = "io.istio.peer_principal"
"""Filter state: the SPIFFE URI of the client whose mutual TLS ended here."""
CLIENT_CERTIFICATE_STATE: Final = "meshd.client_certificate"
"""Filter state: what ``x-forwarded-client-cert`` says of that client."""
SERVER_NAME_STATE: Final = "meshd.server_name"
"""Filter state: the name in the TLS hello of the client, for policies that ask for it."""
SERVER_NAMES_STATE: Final = "envoy.network.upstream_subject_alt_names"
"""Filter state: the names of which the server's certificate must have one. It is part of the key of
connection pools."""
CALLER_STATE: Final = "meshd.caller"
"""Filter state: the SPIFFE URI in whose name the short way is taken."""
SOURCE_STATE: Final = "meshd.source"
"""Filter state: the caller's address, without a port, which would give each of its connections
upstream pools of its own."""

BAGGAGE_STATE: Final = "meshd.baggage"
"""Filter state: what a tunnel's request says of the workload."""
POOL_STATE: Final = "meshd.pool"
"""Filter state: all that keeps pools of upstream connections apart, see ``filter_state``. No other
value that is shared with them may be hashable, but addresses, whose type is."""
RETURNED_STATE: Final = "meshd.returned"
RETURNED: Final = "true"
REQUESTS_STATE: Final = "meshd.requests"
"""Filter state: the client's side sends requests that say who makes them; beyond the short way, in
which version of HTTP."""
REQUESTS: Final = "requests"

TABLE_HEADER: Final = "x-meshd-table"
"""Header of a request by which its route table is chosen. It is written by the proxy and goes no
further."""

WORKLOAD_STATE: Final = "meshd.workload"
"""Filter state: the workload's uid, for logs."""
HOST_STATE: Final = "meshd.of_host"
"""Filter state: the workload is a service of the host, and has no namespace of its own."""
UNHASHED: Final = "envoy.string"

HTTP10_FIRST_LINE: Final = "http/1.0"
HTTP_FIRST_LINE: Final = ("http/1.1", "h2c")
"""What the HTTP inspector reports."""

HASHED: Final = "envoy.hashable_string"
"""The kind of filter state that is part of a connection pool's key. The key that names identity and
namespace must be of it: with any other, one workload's request could travel on another's
connection."""

StateValue = value_pb2.FilterStateValue
Sharing = value_pb2.FilterStateValue.SharedWithUpstream
ONCE: Final = Sharing.ONCE
TRANSITIVE: Final = Sharing.TRANSITIVE


def packed(message: Message) -> any_pb2.Any:
    result = any_pb2.Any()
    result.Pack(message, deterministic=True)
    return result


def extension(name: str, message: Message) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(message))


def filter_(name: str, message: Message) -> listener_components_pb2.Filter:
    """Return a network filter."""
    return listener_components_pb2.Filter(name=name, typed_config=packed(message))


def seconds(value: float) -> duration_pb2.Duration:
    whole = int(value)
    return duration_pb2.Duration(seconds=whole, nanos=round((value - whole) * 1e9))


def true() -> wrappers_pb2.BoolValue:
    return wrappers_pb2.BoolValue(value=True)


def socket_address(
    address: str, port: int, netns: str = "", *, udp: bool = False
) -> address_pb2.Address:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(
            address=address,
            port_value=port,
            network_namespace_filepath=netns,
            protocol=address_pb2.SocketAddress.UDP if udp else address_pb2.SocketAddress.TCP,
        )
    )


def over_ads() -> config_source_pb2.ConfigSource:
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )


def from_namespace(mark: int = PROXY_MARK) -> address_pb2.BindConfig:
    """Return settings that open a cluster's connections in the namespace of the filter state."""
    return address_pb2.BindConfig(
        source_address=address_pb2.SocketAddress(address="0.0.0.0", port_value=0),
        extra_source_addresses=[
            address_pb2.ExtraSourceAddress(
                address=address_pb2.SocketAddress(address="::", port_value=0)
            )
        ],
        local_address_selector=extension(
            "envoy.upstream.local_address_selector.filter_state_override", config_pb2.Config()
        ),
        socket_options=[
            socket_option_pb2.SocketOption(
                description="proxy mark",
                level=_SOL_SOCKET,
                name=_SO_MARK,
                int_value=mark,
                state=socket_option_pb2.SocketOption.STATE_PREBIND,
            ),
            *socket_options(local=mark == PROXY_INBOUND_MARK),
        ],
    )


def literal(text: str) -> str:
    """Return text as a format writes it that is to be taken as it is."""
    return text.replace("%", "%%")


def state_value(key: str, text: str, sharing: Sharing, factory: str = UNHASHED) -> StateValue:
    """Return one value of filter state; ``text`` may hold Envoy's format commands."""
    return value_pb2.FilterStateValue(
        object_key=key,
        factory_key=factory,
        format_string=substitution_format_string_pb2.SubstitutionFormatString(
            text_format_source={"inline_string": text}, omit_empty_values=True
        ),
        shared_with_upstream=sharing,
    )


def set_filter_state(
    *values: StateValue, after_handshake: Iterable[StateValue] = ()
) -> listener_components_pb2.Filter:
    """Return a filter; ``after_handshake``: values that are known only with the client's
    certificate."""
    config = packed(
        network_filter_state_pb2.NetworkFilterState(
            on_new_connection=values, on_downstream_tls_handshake=after_handshake
        )
    )
    config.type_url = _NETWORK_FILTER_STATE
    return listener_components_pb2.Filter(
        name="envoy.filters.network.set_filter_state", typed_config=config
    )


def state_on_accept(*values: StateValue) -> listener_components_pb2.ListenerFilter:
    """Set once for all of a listener's chains, which takes less memory than in each of them."""
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.set_filter_state",
        typed_config=packed(listener_filter_state_pb2.Config(on_new_connection=values)),
    )


def original_destination() -> listener_components_pb2.ListenerFilter:
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.original_dst",
        typed_config=packed(original_dst_pb2.OriginalDst()),
    )


def inspect_tls() -> listener_components_pb2.ListenerFilter:
    """Return the filter that looks for a TLS hello."""
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.tls_inspector",
        typed_config=packed(tls_inspector_pb2.TlsInspector()),
    )


def inspect_http() -> listener_components_pb2.ListenerFilter:
    """Return the filter that looks for an HTTP request's first line."""
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.http_inspector",
        typed_config=packed(http_inspector_pb2.HttpInspector()),
    )
