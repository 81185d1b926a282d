"""A workload's outgoing connections: a thin listener in its namespace.

It notes whose connection it is and where it was going, and hands it to the internal listeners of
the workload's scope, which have the filter chains for all services. So the memory of one more
workload does not depend on how many services there are.
"""

from __future__ import annotations

from typing import Final

from meshd.compile.names import listener_name, scope_listener_name
from meshd.compile.plan.chains import Answer, Chain, Owner
from meshd.compile.plan.choices import ByAddress, ByPort, To
from meshd.compile.plan.listeners import Listener
from meshd.compile.traffic.baggage import baggage
from meshd.compile.traffic.fixed_chains import REFUSING, hop
from meshd.compile.traffic.sockets import own_traps, socket_in_namespace
from meshd.model.interception import (
    CAPTURE_PROBE_ADDRESS,
    CAPTURE_PROBE_ADDRESS_V6,
    CAPTURE_PROBE_PORT,
    OUTBOUND_PORT,
)
from meshd.model.short_way import own_address
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload

_PROBE: Final = "probe"


def owner(workload: Workload, identity: Identity, options: MeshOptions) -> Owner:
    """Return on whose behalf a workload's connections are made, and from where."""
    address = own_address(workload) if options.short_way else ""
    return Owner(
        workload.uid,
        workload.netns,
        identity.client_secret,
        caller=identity.uri if address else "",
        address=address,
        baggage=baggage(workload, options) if options.hbone else "",
    )


def workload_listener(
    workload: Workload, identity: Identity, scope: str, options: MeshOptions
) -> Listener:
    """Return the listener for what the namespace's rules redirect to port 15001."""
    traps = own_traps(workload, OUTBOUND_PORT)
    probe = ByAddress(dict.fromkeys((CAPTURE_PROBE_ADDRESS, CAPTURE_PROBE_ADDRESS_V6), To(_PROBE)))
    return Listener(
        name=listener_name(workload.uid, "outbound"),
        statistics="outbound",
        socket=socket_in_namespace(workload, OUTBOUND_PORT, options),
        original_destination=True,
        owner=owner(workload, identity, options),
        choice=ByPort({CAPTURE_PROBE_PORT: probe, **traps}),
        # The answer to capture's probe is here, not behind the hop: closing at once a connection
        # that came over an internal one resets it before the answer is through.
        chains=(
            Chain(name=_PROBE, target=Answer(f"meshd {workload.uid}\n")),
            *((REFUSING,) if traps else ()),
        ),
        default=Chain(name="scope", target=hop("outbound", scope_listener_name(scope))),
    )
