# pyright: reportAttributeAccessIssue=false
"""A workload's outgoing connections: a thin listener in its namespace, and what all share.

The thin one notes whose connection it is and where it was going, and hands it to the internal
listener of the workload's scope, which has the filter chains for all services. So the memory of
one more workload does not depend on how many services there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.direct_response.v3 import config_pb2

from meshd.compile import wellknown
from meshd.compile.http import client_manager
from meshd.compile.internal import handover, internal_cluster
from meshd.compile.listeners import (
    chain,
    chain_match,
    in_namespace,
    loop_trap,
    own_traps,
    refused,
)
from meshd.compile.matching import by_address, by_port, to_chain
from meshd.compile.names import BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER, client_routes
from meshd.compile.opaque import destinations, opaque_routes, without_repeated
from meshd.compile.tcp import tcp_proxy
from meshd.compile.visibility import View
from meshd.compile.wellknown import ONCE, TRANSITIVE, seconds, state_value
from meshd.model.interception import (
    CAPTURE_PROBE_ADDRESS,
    CAPTURE_PROBE_ADDRESS_V6,
    CAPTURE_PROBE_PORT,
    OUTBOUND_PORT,
)
from meshd.model.service import Protocol, Resolution
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload

_PROBE: Final = "probe"


def identify(
    workload: Workload, identity: Identity, options: MeshOptions, sharing: Any
) -> list[Any]:
    """Filter state that says on whose behalf a connection is made, and from where."""
    return [
        state_value(wellknown.SECRET_STATE, identity.client_secret, sharing),
        *wellknown.whose(workload, sharing),
    ]


def workload_listener(
    workload: Workload, identity: Identity, scope: str, options: MeshOptions
) -> Any:
    """Takes what the namespace's rules redirect to port 15001."""
    traps = own_traps(workload, OUTBOUND_PORT)
    probe = by_address(
        dict.fromkeys((CAPTURE_PROBE_ADDRESS, CAPTURE_PROBE_ADDRESS_V6), to_chain(_PROBE))
    )
    return in_namespace(
        workload,
        "outbound",
        OUTBOUND_PORT,
        options,
        listener_filters=[
            wellknown.original_destination(),
            wellknown.state_on_accept(
                *identify(workload, identity, options, TRANSITIVE), *handover()
            ),
        ],
        filter_chain_matcher=by_port({CAPTURE_PROBE_PORT: probe, **traps}).matcher,
        filter_chains=[_probe_answer(workload), *([refused()] if traps else [])],
        default_filter_chain=chain(
            "scope", None, [tcp_proxy("outbound", [(scope_listener_name(scope), 1)])]
        ),
    )


def _probe_answer(workload: Workload) -> Any:
    """What capture's probe waits for. Here, not behind the hop: closing at once what comes over
    an internal connection resets it before the answer is through."""
    answer = config_pb2.Config(
        response=base_pb2.DataSource(inline_string=f"meshd {workload.uid}\n")
    )
    return chain(_PROBE, None, [wellknown.filter_("envoy.filters.network.direct_response", answer)])


def scope_listener_name(scope: str) -> str:
    """Of the internal listener, and of the cluster that leads there."""
    return f"outbound@{scope}"


def scope_cluster(scope: str) -> Any:
    """The way from the thin listeners into the scope's internal one."""
    name = scope_listener_name(scope)
    return internal_cluster(name, name)


def scope_listener(view: View, options: MeshOptions) -> Any:
    """The internal listener: a filter chain for each port that speaks HTTP, and for the rest one
    for each service's port. No two may match the same, so the first one counts."""
    ports = _ports(view)
    sniffed = frozenset(number for number, kinds in ports.items() if Protocol.SNIFFED in kinds)
    tls = frozenset(
        number for number, kinds in ports.items() if kinds & {Protocol.TLS, Protocol.HTTPS}
    )
    chains = [
        loop_trap(OUTBOUND_PORT),
        *_http_chains(view, ports, options),
        *_opaque_chains(view, options),
    ]
    rest = PASSTHROUGH_CLUSTER if options.outbound_policy == "ALLOW_ANY" else BLACK_HOLE_CLUSTER
    return listener_pb2.Listener(
        name=scope_listener_name(view.scope.name),
        stat_prefix="scope",
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        listener_filters=[
            wellknown.original_destination(),
            *([wellknown.inspect_tls(tls)] if tls else []),
            *([wellknown.inspect_http(sniffed)] if sniffed else []),
        ],
        listener_filters_timeout=seconds(options.protocol_detection_timeout),
        continue_on_listener_filters_timeout=True,
        filter_chains=chains,
        default_filter_chain=chain("rest", None, [tcp_proxy(rest, [(rest, 1)], options)]),
    )


def _ports(view: View) -> dict[int, set[Protocol]]:
    """Which protocols are spoken on which port, over all services."""
    found: dict[int, set[Protocol]] = {}
    for service in view.services.values():
        for port in service.ports:
            if port.protocol is not Protocol.UDP:
                found.setdefault(port.number, set()).add(port.protocol)
    return found


def _http_chains(
    view: View, ports: dict[int, set[Protocol]], options: MeshOptions
) -> Iterator[Any]:
    """HTTP goes by its host, so that one chain serves all services on a port.

    On ports where a protocol is found out, HTTP's chain catches what looks like it, for any
    address: the other chains are for one address each, and would win otherwise.
    """
    for number, kinds in sorted(ports.items()):
        manager = client_manager(
            f"outbound_{number}",
            client_routes(number, view.scope.name),
            options,
            dynamic=_is_dynamic(view, number),
        )
        if any(kind.is_http for kind in kinds):
            yield chain(f"http|{number}", chain_match(port=number), [manager])
        if Protocol.SNIFFED in kinds:
            known = wellknown.set_filter_state(
                state_value(
                    wellknown.ALPN_STATE, "istio-http/1.1", ONCE, factory=wellknown.ALPN_STATE
                )
            )
            prefixes = [
                address
                for service in view.services.values()
                for port in service.ports
                if port.number == number and port.protocol is Protocol.SNIFFED
                for address in destinations(service)
            ]
            yield chain(
                f"sniffed|{number}",
                chain_match(
                    port=number,
                    prefixes=tuple(dict.fromkeys(prefixes)),
                    alpn=wellknown.HTTP_FIRST_LINE,
                ),
                [known, manager],
            )


def _is_dynamic(view: View, port: int) -> bool:
    services = view.by_port.get(port, ())
    return any(one.resolution is Resolution.DYNAMIC_DNS for one in services)


def _opaque_chains(view: View, options: MeshOptions) -> Iterator[Any]:
    """Everything that is not HTTP, by address and port, or by server name."""
    for route in without_repeated(opaque_routes(view)):
        match = chain_match(
            port=route.port, prefixes=route.prefixes, server_names=route.server_names
        )
        yield chain(route.name, match, route.filters(options))
