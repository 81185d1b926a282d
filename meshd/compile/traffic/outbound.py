"""A workload's outgoing connections: a thin listener in its namespace.

It notes whose connection it is and where it was going, and hands it to the internal listeners of
the workload's scope, which have the filter chains for all services. So the memory of one more
workload does not depend on how many services there are.
"""

from __future__ import annotations

from typing import Final

from meshd.compile.names import listener_name, scope_listener_name
from meshd.compile.plan.chains import Answer, Chain, Http, Owner
from meshd.compile.plan.choices import ByAddress, ByPort, To, Way
from meshd.compile.plan.listeners import Listener
from meshd.compile.traffic.baggage import baggage
from meshd.compile.traffic.fixed_chains import REFUSING, hop
from meshd.compile.traffic.sockets import own_traps, socket_in_namespace
from meshd.compile.traffic.virtual_addresses import unless_closed
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
_REQUESTS: Final = "http"
_SCOPE: Final = "scope"


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
    workload: Workload,
    identity: Identity,
    scope: str,
    requests: tuple[int, ...],
    options: MeshOptions,
) -> Listener:
    """Return the listener for what the namespace's rules redirect to port 15001.

    ``requests``: the ports at which all that is sent to any address is HTTP.
    """
    traps = own_traps(workload, OUTBOUND_PORT)
    probe = ByAddress(dict.fromkeys((CAPTURE_PROBE_ADDRESS, CAPTURE_PROBE_ADDRESS_V6), To(_PROBE)))
    return Listener(
        name=listener_name(workload.uid, "outbound"),
        statistics="outbound",
        socket=socket_in_namespace(workload, OUTBOUND_PORT, options),
        original_destination=True,
        owner=owner(workload, identity, options),
        hands_over=False,
        # Connections that go straight from here to an upstream are those of requests.
        names_callers=options.short_way and options.direct_requests,
        notes_address=options.direct_requests,
        choice=_choice({CAPTURE_PROBE_PORT: probe, **traps}, requests, options),
        # The answer to capture's probe is here, not behind the hop: closing at once a connection
        # that came over an internal one resets it before the answer is through.
        chains=(
            Chain(name=_PROBE, target=Answer(f"meshd {workload.uid}\n")),
            *((REFUSING,) if traps else ()),
            *((_requests(scope, options),) if options.direct_requests else ()),
            Chain(name=_SCOPE, target=hop("outbound", scope_listener_name(scope)), hands_over=True),
        ),
    )


def _choice(own: dict[int, Way], requests: tuple[int, ...], options: MeshOptions) -> Way:
    """Return what is answered here, and otherwise by the scope."""
    here = dict.fromkeys(requests if options.direct_requests else (), To(_REQUESTS))
    return unless_closed(ByPort({**here, **own}, To(_SCOPE)), options, _SCOPE)


def _requests(scope: str, options: MeshOptions) -> Chain:
    """Return the chain of requests, which is there whether there are any or not, and whatever their
    ports are: nothing changes it."""
    target = Http(
        statistics="outbound",
        routes="",
        scope=scope,
        access_log=options.access_log,
        applies_routes=True,
        certificate="remove",
        http10=options.accept_http_10,
    )
    return Chain(name=_REQUESTS, target=target)
