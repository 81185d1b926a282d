"""Prints listeners: sockets in a namespace, what is found out of a connection, its chains."""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.listener.v3 import (
    listener_components_pb2,
    listener_pb2,
    udp_listener_config_pb2,
)
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import udp_proxy_pb2
from xds.type.matcher.v3 import matcher_pb2

from meshd.compile.envoy import filter_state, limits, wellknown
from meshd.compile.envoy.chains import chain, judged_chain
from meshd.compile.envoy.choices import matcher, of_callers
from meshd.compile.envoy.wellknown import packed, seconds, socket_address
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.listeners import DatagramListener, Listener, Socket
from meshd.model.interception import PROXY_INBOUND_MARK

_Filter = listener_components_pb2.ListenerFilter


def listener(plan: Listener | DatagramListener) -> listener_pb2.Listener:
    if isinstance(plan, DatagramListener):
        return _of_datagrams(plan)
    made = listener_pb2.Listener(
        name=plan.name,
        stat_prefix=plan.statistics,
        listener_filters=_listener_filters(plan),
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
        filter_chain_matcher=_choice(plan),
        filter_chains=[chain(each) for each in plan.chains],
        default_filter_chain=None if plan.default is None else chain(plan.default),
    )
    if plan.patience is not None:
        made.listener_filters_timeout.CopyFrom(seconds(plan.patience))
        made.continue_on_listener_filters_timeout = True
    if plan.socket is None:
        made.internal_listener.SetInParent()
        return made
    _open(made, plan.socket)
    # What is inbound stops listening when the proxy is drained, see ``proxy.admin``.
    made.traffic_direction = "INBOUND"  # pyright: ignore[reportAttributeAccessIssue]
    # Workloads take turns: whoever opens many at once waits in its own backlog.
    made.max_connections_to_accept_per_socket_event.value = 1
    made.socket_options.extend(limits.socket_options(local=plan.socket.near))
    return made


def judged_listener(found: listener_pb2.Listener, rules: Authorization) -> listener_pb2.Listener:
    """Return a gateway's listener with other rules for connections that are not HTTP."""
    made = listener_pb2.Listener()
    made.CopyFrom(found)
    for each in made.filter_chains:
        judged_chain(each, rules)
    return made


def _choice(plan: Listener) -> matcher_pb2.Matcher | None:
    if plan.choice is None:
        return None
    made = matcher(plan.choice)
    if plan.callers is None:
        return made
    return of_callers(plan.callers.known, made, plan.callers.refused)


def _open(made: listener_pb2.Listener, socket: Socket, *, udp: bool = False) -> None:
    """Write on which addresses it listens, also later ones of IPv6."""
    first, *others = (
        socket_address(address, socket.port, socket.netns, udp=udp) for address in socket.addresses
    )
    made.address.CopyFrom(first)
    made.additional_addresses.extend(
        listener_pb2.AdditionalAddress(address=other) for other in others
    )
    if others:
        # Also while IPv6 is switched off on the interface that has the address.
        made.freebind.value = True


def _listener_filters(plan: Listener) -> Iterator[listener_components_pb2.ListenerFilter]:
    if plan.notes_inside:
        yield filter_state.of_short_way()
    if plan.into_tunnels:
        yield filter_state.of_tunneled()
    if plan.original_destination:
        yield wellknown.original_destination()
    if plan.owner is not None:
        yield filter_state.of_listener(
            plan.owner,
            hands_over=plan.hands_over,
            names_callers=plan.names_callers,
            notes_address=plan.notes_address,
        )
    if plan.as_the_client:
        config = original_src_pb2.OriginalSrc(mark=PROXY_INBOUND_MARK)
        yield _Filter(name="envoy.filters.listener.original_src", typed_config=packed(config))
    if plan.inspects_tls:
        yield wellknown.inspect_tls()
    if plan.inspects_http:
        yield wellknown.inspect_http()


def _of_datagrams(plan: DatagramListener) -> listener_pb2.Listener:
    proxy = udp_proxy_pb2.UdpProxyConfig(
        stat_prefix=plan.statistics,
        idle_timeout=seconds(plan.idle_timeout),
        # Not the matcher, of which Envoy warns each time that it is not finished.
        cluster=plan.upstream,
    )
    made = listener_pb2.Listener(
        name=plan.name,
        stat_prefix=plan.statistics,
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(),
        listener_filters=[
            _Filter(name="envoy.filters.udp_listener.udp_proxy", typed_config=packed(proxy))
        ],
        per_connection_buffer_limit_bytes=limits.connection_buffer(),
    )
    _open(made, plan.socket, udp=True)
    return made
