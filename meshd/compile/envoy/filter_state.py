"""Prints filter state: what is noted of a connection for those that come after.

What goes on to an internal listener is shared with it, and there with the upstream connection
(``TRANSITIVE``): a connection may pass several of them. What is of one hop only is shared once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from envoy.config.listener.v3 import listener_components_pb2

from meshd.compile.envoy.assignments import INSIDE, TUNNEL
from meshd.compile.envoy.wellknown import (
    ALPN_STATE,
    BAGGAGE_STATE,
    CALLER_STATE,
    CLIENT_CERTIFICATE_STATE,
    HOST_STATE,
    LOCAL_ADDRESS_STATE,
    NETNS_STATE,
    ONCE,
    PEER_STATE,
    REMOTE_ADDRESS_STATE,
    REQUESTS,
    REQUESTS_STATE,
    SECRET_STATE,
    SERVER_NAME_STATE,
    SERVER_NAMES_STATE,
    SOURCE_STATE,
    TRANSITIVE,
    TUNNEL_STATE,
    UNHASHED,
    WORKLOAD_STATE,
    Sharing,
    StateValue,
    literal,
    set_filter_state,
    state_on_accept,
    state_value,
)
from meshd.compile.plan.chains import Chain, MeshTls, Owner
from meshd.model.workload import Identity

_HTTP: Final = "istio-http/1.1"
"""How detected HTTP is announced to the other end."""
_OF_CALLERS: Final = (CALLER_STATE, SOURCE_STATE, PEER_STATE, CLIENT_CERTIFICATE_STATE)
"""Noted for the short way, and of clients whose mutual TLS has ended in this proxy."""


def of_listener(owner: Owner, *, hands_over: bool) -> listener_components_pb2.ListenerFilter:
    """Return the filter that notes the owner for all of a listener's chains; ``hands_over``: with
    the connection's own addresses."""
    return state_on_accept(*_owner(owner), *(_handover() if hands_over else ()))


def of_tunneled() -> listener_components_pb2.ListenerFilter:
    """Return the filter that notes whose certificate the end of the connection's tunnel must
    show, and with which other connections it may share that tunnel.

    Envoy hashes the values of a pool's key in the order of a hash map, which differs from one
    connection to the next: of two, each would have a second tunnel. So there is one, with all that
    tells tunnels apart, and the others stay as they are but for the hash. What is known of callers
    stays here.
    """
    expected = f"%DYNAMIC_METADATA({TUNNEL}:identity)%"
    key = f"{_noted(SECRET_STATE)} {_noted(NETNS_STATE)}"
    return state_on_accept(
        state_value(SERVER_NAMES_STATE, expected, ONCE, factory=SERVER_NAMES_STATE),
        state_value(TUNNEL_STATE, key, ONCE),
        *(_unhashed(name, ONCE) for name in (SECRET_STATE, NETNS_STATE)),
        *(_unhashed(name, Sharing.NONE) for name in _OF_CALLERS),
    )


def _unhashed(name: str, sharing: Sharing) -> StateValue:
    """Return a value that was noted before, if it was, as no part of the key of pools."""
    made = state_value(name, _noted(name), sharing, factory=UNHASHED)
    made.skip_if_empty = True
    return made


def _noted(name: str) -> str:
    return f"%FILTER_STATE({name}:PLAIN)%"


def of_request() -> list[StateValue]:
    """Return what is noted of a request that is a connection itself: who opened the tunnel that it
    came by, and the port of this workload that it asks for.

    The client's address is that of the tunnel's own connection: headers may claim any.
    """
    return [
        state_value(LOCAL_ADDRESS_STATE, "%REQ(:AUTHORITY)%", ONCE, LOCAL_ADDRESS_STATE),
        state_value(
            REMOTE_ADDRESS_STATE, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", ONCE, REMOTE_ADDRESS_STATE
        ),
    ]


def of_chain(chain: Chain) -> listener_components_pb2.Filter | None:
    """Return the filter that notes what a chain adds; None: it adds nothing."""
    noted = [*_owner(chain.owner)] if chain.owner else []
    if chain.announces_http:
        noted.append(state_value(ALPN_STATE, _HTTP, ONCE, factory=ALPN_STATE))
    if chain.notes_server_name:
        name = "%REQUESTED_SERVER_NAME%"
        noted.append(state_value(SERVER_NAME_STATE, name, TRANSITIVE, factory=UNHASHED))
    if chain.names_callers:
        noted.append(state_value(REQUESTS_STATE, REQUESTS, ONCE, factory=UNHASHED))
    if chain.hands_over:
        noted += _handover()
    peer: list[StateValue] = []
    if chain.notes_peer and isinstance(chain.tls, MeshTls):
        peer += _peer(chain.tls.identity)
    return set_filter_state(*noted, after_handshake=peer) if noted or peer else None


def _owner(owner: Owner) -> Iterator[StateValue]:
    """Yield on whose behalf upstream connections are made, and from which namespace.

    For services of the host that is the proxy's own, which is not named.
    """
    if owner.certificate:
        yield state_value(SECRET_STATE, owner.certificate, TRANSITIVE)
    yield state_value(WORKLOAD_STATE, owner.uid, TRANSITIVE, factory=UNHASHED)
    if owner.caller:
        yield state_value(CALLER_STATE, owner.caller, TRANSITIVE)
        yield state_value(SOURCE_STATE, owner.address, TRANSITIVE)
    if owner.baggage:
        yield state_value(BAGGAGE_STATE, literal(owner.baggage), TRANSITIVE, factory=UNHASHED)
    if owner.netns:
        yield state_value(NETNS_STATE, owner.netns, TRANSITIVE)
    else:
        yield state_value(HOST_STATE, "true", TRANSITIVE, factory=UNHASHED)


def _handover() -> Iterator[StateValue]:
    """Yield state that lets the internal listener see the connection's own addresses.

    Shared once: the client's port in it would else give each connection upstream pools of its own.
    """
    yield state_value(LOCAL_ADDRESS_STATE, "%DOWNSTREAM_LOCAL_ADDRESS%", ONCE, LOCAL_ADDRESS_STATE)
    yield state_value(
        REMOTE_ADDRESS_STATE, "%DOWNSTREAM_REMOTE_ADDRESS%", ONCE, REMOTE_ADDRESS_STATE
    )


def _peer(identity: Identity) -> Iterator[StateValue]:
    """Yield who called, known once the handshake is done."""
    yield state_value(PEER_STATE, "%DOWNSTREAM_PEER_URI_SAN%", TRANSITIVE)
    yield state_value(
        CLIENT_CERTIFICATE_STATE,
        f"By={identity.uri};Hash=%DOWNSTREAM_PEER_FINGERPRINT_256%;"
        'Subject="%DOWNSTREAM_PEER_SUBJECT%";URI=%DOWNSTREAM_PEER_URI_SAN%',
        TRANSITIVE,
    )


def of_short_way() -> listener_components_pb2.ListenerFilter:
    """Return the filter that notes of a connection by the short way what is known of others once
    their handshake is done. It replaces what was noted of the caller's own namespace."""
    caller = _noted(CALLER_STATE)
    return state_on_accept(
        state_value(
            REMOTE_ADDRESS_STATE,
            f"{_noted(SOURCE_STATE)}:0",
            ONCE,
            REMOTE_ADDRESS_STATE,
        ),
        state_value(WORKLOAD_STATE, _of_endpoint("workload"), TRANSITIVE, factory=UNHASHED),
        state_value(NETNS_STATE, _of_endpoint("netns"), TRANSITIVE),
        state_value(
            REQUESTS_STATE,
            f"{_noted(REQUESTS_STATE)}-{_of_endpoint('requests')}",
            Sharing.NONE,
            factory=UNHASHED,
        ),
        state_value(PEER_STATE, caller, TRANSITIVE),
        state_value(
            CLIENT_CERTIFICATE_STATE, f"By={_of_endpoint('identity')};URI={caller}", TRANSITIVE
        ),
    )


def _of_endpoint(key: str) -> str:
    return f"%DYNAMIC_METADATA({INSIDE}:{key})%"
