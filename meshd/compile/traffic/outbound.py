"""A workload's outgoing connections: a thin listener in its namespace.

It notes whose connection it is and where it was going, and hands it to the internal listeners of
the workload's scope, which have the filter chains for all services. So the memory of one more
workload does not depend on how many services there are.
"""

from __future__ import annotations

from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.network.direct_response.v3 import config_pb2

from meshd.compile.envoy import wellknown
from meshd.compile.envoy.internal import handover
from meshd.compile.envoy.listeners import chain, in_namespace, own_traps, refused
from meshd.compile.envoy.matching import by_address, by_port, to_chain
from meshd.compile.envoy.wellknown import TRANSITIVE, Sharing, StateValue, state_value
from meshd.compile.traffic.scope_listeners import scope_listener_name
from meshd.compile.traffic.tcp import tcp_proxy
from meshd.model.interception import (
    CAPTURE_PROBE_ADDRESS,
    CAPTURE_PROBE_ADDRESS_V6,
    CAPTURE_PROBE_PORT,
    OUTBOUND_PORT,
)
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload

_PROBE: Final = "probe"


def identify(
    workload: Workload, identity: Identity, options: MeshOptions, sharing: Sharing
) -> list[StateValue]:
    """Filter state that says on whose behalf a connection is made, and from where."""
    return [
        state_value(wellknown.SECRET_STATE, identity.client_secret, sharing),
        *wellknown.whose(workload, sharing),
    ]


def workload_listener(
    workload: Workload, identity: Identity, scope: str, options: MeshOptions
) -> listener_pb2.Listener:
    """Return the listener for what the namespace's rules redirect to port 15001."""
    traps = own_traps(workload, OUTBOUND_PORT)
    probe = by_address(
        dict.fromkeys((CAPTURE_PROBE_ADDRESS, CAPTURE_PROBE_ADDRESS_V6), to_chain(_PROBE))
    )
    return in_namespace(
        workload,
        "outbound",
        OUTBOUND_PORT,
        options,
        listener_pb2.Listener(
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
        ),
    )


def _probe_answer(workload: Workload) -> listener_components_pb2.FilterChain:
    """Return the chain that answers capture's probe.

    It is here, not behind the hop: closing at once a connection that came over an internal one
    resets it before the answer is through.
    """
    answer = config_pb2.Config(
        response=base_pb2.DataSource(inline_string=f"meshd {workload.uid}\n")
    )
    return chain(_PROBE, None, [wellknown.filter_("envoy.filters.network.direct_response", answer)])
