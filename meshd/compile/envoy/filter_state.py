"""Prints filter state: what is noted of a connection for those that come after.

What goes on to an internal listener is shared with it, and there with the upstream connection
(``TRANSITIVE``): a connection may pass several of them. What is of one hop only is shared once.

Pools of upstream connections are kept apart by one value, ``POOL_STATE``, that names all of
``APART``. Envoy hashes each hashable value that is shared with a pool, in the order of a hash map,
which differs from one connection to the next: of two values, each client would have a second pool.
Whatever notes one of them notes the key again, by ``keyed``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from envoy.config.listener.v3 import listener_components_pb2

from meshd.compile.envoy.assignments import INSIDE, TUNNEL
from meshd.compile.envoy.wellknown import (
    ALPN_STATE,
    BAGGAGE_STATE,
    CALLER_STATE,
    CLIENT_CERTIFICATE_STATE,
    HASHED,
    HOST_STATE,
    LOCAL_ADDRESS_STATE,
    NETNS_STATE,
    ONCE,
    PEER_STATE,
    POOL_STATE,
    REMOTE_ADDRESS_STATE,
    REQUESTS,
    REQUESTS_STATE,
    RETURNED,
    RETURNED_STATE,
    SECRET_STATE,
    SERVER_NAME_STATE,
    SERVER_NAMES_STATE,
    SOURCE_STATE,
    TRANSITIVE,
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
APART: Final = (
    SECRET_STATE,
    NETNS_STATE,
    CALLER_STATE,
    SOURCE_STATE,
    CLIENT_CERTIFICATE_STATE,
    PEER_STATE,
)
"""Connections that differ in one of these share no upstream connection."""
_OF_TUNNELS: Final = (SECRET_STATE, NETNS_STATE)
"""Those of ``APART`` that keep tunnels apart; what is known of callers does not go into them."""
_SEPARATOR: Final = "\n"
"""Is in no value but, at worst, in those that a client's certificate holds. They come last, behind
the fingerprint of that certificate."""


def keyed(
    values: Iterable[StateValue], sharing: Sharing, *, first: bool = False
) -> list[StateValue]:
    """Return values together with the key of pools that follows from them.

    What they do not say is in the key as it was noted before. ``first``: nothing was.
    """
    made = list(values)
    texts = {one.object_key: one.format_string.text_format_source.inline_string for one in made}
    parts = (texts.get(name, "" if first else _noted(name)) for name in APART)
    return [*made, state_value(POOL_STATE, _SEPARATOR.join(parts), sharing, factory=HASHED)]


def of_listener(
    owner: Owner, *, hands_over: bool, names_callers: bool = False, notes_address: bool = False
) -> listener_components_pb2.ListenerFilter:
    """Return the filter that notes the owner for all of a listener's chains; ``hands_over``: with
    the connection's own addresses; ``names_callers``, ``notes_address``: see ``Listener``."""
    return state_on_accept(
        *_owner(owner),
        *(_handover() if hands_over else ()),
        *((_naming_callers(),) if names_callers else ()),
        *((_address(Sharing.NONE),) if notes_address else ()),
    )


def of_tunneled() -> listener_components_pb2.ListenerFilter:
    """Return the filter that notes whose certificate the end of the connection's tunnel must
    show, and with which other connections it may share that tunnel: with those of the same
    certificate and namespace, whoever their own callers are."""
    expected = f"%DYNAMIC_METADATA({TUNNEL}:identity)%"
    key = _SEPARATOR.join(map(_noted, _OF_TUNNELS))
    return state_on_accept(
        state_value(SERVER_NAMES_STATE, expected, ONCE, factory=SERVER_NAMES_STATE),
        state_value(POOL_STATE, key, ONCE, factory=HASHED),
    )


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
    noted = _owner(chain.owner) if chain.owner else []
    if chain.announces_http:
        noted.append(state_value(ALPN_STATE, _HTTP, ONCE, factory=ALPN_STATE))
    if chain.notes_server_name:
        name = "%REQUESTED_SERVER_NAME%"
        noted.append(state_value(SERVER_NAME_STATE, name, TRANSITIVE))
    if chain.names_callers:
        noted.append(_naming_callers())
    if chain.leads_back:
        noted.append(state_value(RETURNED_STATE, RETURNED, ONCE))
    if chain.hands_over:
        noted += _handover()
    peer: list[StateValue] = []
    if chain.notes_peer and isinstance(chain.tls, MeshTls):
        peer += _peer(chain.tls.identity)
    return set_filter_state(*noted, after_handshake=peer) if noted or peer else None


def _owner(owner: Owner) -> list[StateValue]:
    """Return on whose behalf upstream connections are made, and from which namespace.

    For services of the host that is the proxy's own, which is not named.
    """
    apart = {
        SECRET_STATE: owner.certificate,
        CALLER_STATE: owner.caller,
        SOURCE_STATE: owner.address if owner.caller else "",
        NETNS_STATE: owner.netns,
    }
    noted = {
        **{name: text for name, text in apart.items() if text},
        WORKLOAD_STATE: owner.uid,
        **({BAGGAGE_STATE: owner.baggage} if owner.baggage else {}),
        **({} if owner.netns else {HOST_STATE: "true"}),
    }
    values = (state_value(name, literal(text), TRANSITIVE) for name, text in noted.items())
    return keyed(values, TRANSITIVE, first=True)


def _address(sharing: Sharing) -> StateValue:
    """Return the address that the client wanted."""
    wanted = "%DOWNSTREAM_LOCAL_ADDRESS%"
    return state_value(LOCAL_ADDRESS_STATE, wanted, sharing, LOCAL_ADDRESS_STATE)


def _naming_callers() -> StateValue:
    return state_value(REQUESTS_STATE, REQUESTS, ONCE)


def _handover() -> Iterator[StateValue]:
    """Yield state that lets the internal listener see the connection's own addresses.

    Shared once: the client's port in it would else give each connection upstream pools of its own.
    """
    yield _address(ONCE)
    yield state_value(
        REMOTE_ADDRESS_STATE, "%DOWNSTREAM_REMOTE_ADDRESS%", ONCE, REMOTE_ADDRESS_STATE
    )


def _peer(identity: Identity) -> list[StateValue]:
    """Return who called, known once the handshake is done."""
    certificate = (
        f"By={identity.uri};Hash=%DOWNSTREAM_PEER_FINGERPRINT_256%;"
        'Subject="%DOWNSTREAM_PEER_SUBJECT%";URI=%DOWNSTREAM_PEER_URI_SAN%'
    )
    values = (
        state_value(PEER_STATE, "%DOWNSTREAM_PEER_URI_SAN%", TRANSITIVE),
        state_value(CLIENT_CERTIFICATE_STATE, certificate, TRANSITIVE),
    )
    return keyed(values, TRANSITIVE)


def of_short_way() -> listener_components_pb2.ListenerFilter:
    """Return the filter that notes of a connection by the short way what is known of others once
    their handshake is done. It replaces what was noted of the caller's own namespace.

    The address is for this listener alone: its type is hashed, and the key names the caller's.
    """
    caller, requests = _noted(CALLER_STATE), f"{_noted(REQUESTS_STATE)}-{_of_endpoint('requests')}"
    address = f"{_noted(SOURCE_STATE)}:0"
    certificate = f"By={_of_endpoint('identity')};URI={caller}"
    values = (
        state_value(REMOTE_ADDRESS_STATE, address, Sharing.NONE, REMOTE_ADDRESS_STATE),
        state_value(WORKLOAD_STATE, _of_endpoint("workload"), TRANSITIVE),
        state_value(NETNS_STATE, _of_endpoint("netns"), TRANSITIVE),
        state_value(REQUESTS_STATE, requests, Sharing.NONE),
        state_value(PEER_STATE, caller, TRANSITIVE),
        state_value(CLIENT_CERTIFICATE_STATE, certificate, TRANSITIVE),
    )
    return state_on_accept(*keyed(values, TRANSITIVE))


def _of_endpoint(key: str) -> str:
    return f"%DYNAMIC_METADATA({INSIDE}:{key})%"
