"""One hashed value keeps pools of upstream connections apart, and names all that must."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from envoy.config.listener.v3.listener_components_pb2 import Filter, ListenerFilter
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from hypothesis import given
from hypothesis import strategies as st

from meshd.compile.envoy import copies, filter_state
from meshd.compile.envoy.assignments import INSIDE, TUNNEL
from meshd.compile.envoy.wellknown import (
    CALLER_STATE,
    HASHED,
    LOCAL_ADDRESS_STATE,
    NETNS_STATE,
    ONCE,
    POOL_STATE,
    REMOTE_ADDRESS_STATE,
    REQUESTS_STATE,
    SECRET_STATE,
    SOURCE_STATE,
    TRANSITIVE,
    UNHASHED,
    Sharing,
    StateValue,
)
from meshd.compile.plan.chains import Chain, Copies, MeshTls, Owner, Refusal
from meshd.model.workload import Identity
from meshd.protos import listener_filter_state_pb2, network_filter_state_pb2

_HASHED_TYPES = {HASHED, LOCAL_ADDRESS_STATE, REMOTE_ADDRESS_STATE}
"""Factories that make values which Envoy hashes."""
_COMMAND = re.compile(r"%%|%([A-Z_0-9]+)(?:\(([^)]*)\))?%")
_CHAIN = Chain(
    name="x",
    target=Refusal(),
    tls=MeshTls(Identity("d", "n", "a"), ()),
    notes_peer=True,
    notes_server_name=True,
    names_callers=True,
)
_TEXT = st.text(' |;,:=%/\\"n\tab', max_size=4)
"""Of what comes from this node's own configuration."""
_FOREIGN = st.text(' |;,:=%/\\"n\tab\n', max_size=6)
"""Of what a certificate says."""


@dataclasses.dataclass
class Hop:
    """What a listener knows of a connection: each value, its factory, how it is shared."""

    states: dict[str, tuple[str, str, Sharing]] = dataclasses.field(default_factory=dict)

    def note(self, values: Iterable[StateValue], facts: Mapping[str, str]) -> None:
        for one in values:
            text = self._text(one.format_string.text_format_source.inline_string, facts)
            if text or not one.skip_if_empty:
                made = (text, one.factory_key, one.shared_with_upstream)
                self.states[one.object_key] = made

    def _text(self, pattern: str, facts: Mapping[str, str]) -> str:
        def filled(found: re.Match[str]) -> str:
            if found[0] == "%%":
                return "%"
            name = (found[2] or "").removesuffix(":PLAIN")
            if found[1] == "FILTER_STATE":
                return self.states[name][0] if name in self.states else ""
            return facts[name or found[1]]

        return _COMMAND.sub(filled, pattern)

    def next(self) -> Hop:
        """The internal listener to which the connection goes on."""
        shared = {name: one for name, one in self.states.items() if one[2] != Sharing.NONE}
        return Hop(
            {
                name: (text, factory, TRANSITIVE if sharing == TRANSITIVE else Sharing.NONE)
                for name, (text, factory, sharing) in shared.items()
            }
        )

    def hashed(self) -> dict[str, str]:
        """What is in the key of the upstream connection's pool."""
        return {
            name: text
            for name, (text, factory, sharing) in self.states.items()
            if sharing != Sharing.NONE and factory in _HASHED_TYPES
        }

    def key(self) -> str:
        hashed = self.hashed()
        assert list(hashed) == [POOL_STATE]
        return hashed[POOL_STATE]


def of_client(owner: Owner) -> Hop:
    """Behind a workload's listener or, with the same values, a gateway's chain."""
    hop = Hop()
    hop.note(listener_values(filter_state.of_listener(owner, hands_over=False)), {})
    return hop


def of_peer(hop: Hop, san: str, fingerprint: str, subject: str) -> Hop:
    """With what is noted once the client's handshake is done."""
    facts = {
        "DOWNSTREAM_PEER_URI_SAN": san,
        "DOWNSTREAM_PEER_FINGERPRINT_256": fingerprint,
        "DOWNSTREAM_PEER_SUBJECT": subject,
        "REQUESTED_SERVER_NAME": "x",
    }
    hop.note(chain_values(filter_state.of_chain(_CHAIN)), facts)
    return hop


def of_short_way(hop: Hop, netns: str, identity: str) -> Hop:
    made = hop.next()
    said = {"workload": "x", "requests": "", "netns": netns, "identity": identity}
    facts = {f"{INSIDE}:{name}": text for name, text in said.items()}
    made.note(listener_values(filter_state.of_short_way()), facts)
    return made


def of_tunnel(hop: Hop) -> Hop:
    made = hop.next()
    facts = {f"{TUNNEL}:identity": "spiffe://server"}
    made.note(listener_values(filter_state.of_tunneled()), facts)
    return made


def of_copy(states: Mapping[str, str]) -> Hop:
    made = copies.copies_manager(Copies("copies", access_log="errors"))
    manager = http_connection_manager_pb2.HttpConnectionManager.FromString(made.typed_config.value)
    (config,) = (
        set_filter_state_pb2.Config.FromString(one.typed_config.value)
        for one in manager.http_filters
        if one.name == "envoy.filters.http.set_filter_state"
    )
    hop = Hop()
    facts = {name: states.get(state, "") for state, name in copies.STATES.items()}
    hop.note(config.on_request_headers, facts)
    return hop


def listener_values(made: ListenerFilter) -> Iterable[StateValue]:
    return listener_filter_state_pb2.Config.FromString(made.typed_config.value).on_new_connection


def chain_values(made: Filter | None) -> Iterator[StateValue]:
    assert made
    state = network_filter_state_pb2.NetworkFilterState.FromString(made.typed_config.value)
    yield from (*state.on_new_connection, *state.on_downstream_tls_handshake)


OWNERS = st.builds(
    Owner,
    uid=st.just("uid"),
    netns=_TEXT,
    certificate=_TEXT,
    caller=_TEXT.map(lambda text: text and f"spiffe://{text}"),
    address=st.sampled_from(("198.18.0.1", "198.18.0.11", "2001:db8::1")),
)


def apart(owner: Owner) -> tuple[str, ...]:
    return owner.netns, owner.certificate, owner.caller, owner.address if owner.caller else ""


@given(OWNERS, OWNERS)
def test_clients_share_pools_only_if_nothing_tells_them_apart(one: Owner, two: Owner) -> None:
    keys = of_client(one).key(), of_client(two).key()
    assert (keys[0] == keys[1]) == (apart(one) == apart(two))
    behind = of_client(one).next().key(), of_client(two).next().key()
    assert behind == keys


PEERS = st.tuples(_FOREIGN, st.sampled_from(("0a", "0b")), _FOREIGN)


@given(OWNERS, OWNERS, PEERS, PEERS)
def test_clients_of_other_certificates_share_no_pool(
    one: Owner, two: Owner, peer: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    """A fingerprint is that of one certificate, which has one name and one subject."""
    if peer[1] == other[1]:
        other = peer
    hops = of_peer(of_client(one), *peer), of_peer(of_client(two), *other)
    alike = apart(one) == apart(two) and peer == other
    assert (hops[0].key() == hops[1].key()) == alike
    assert [hop.next().key() for hop in hops] == [hop.key() for hop in hops]
    assert all(hop.key() != of_client(owner).key() for hop in hops for owner in (one, two))


ENDS = st.tuples(_TEXT, _TEXT)


@given(OWNERS, OWNERS, ENDS, ENDS)
def test_callers_by_the_short_way_share_pools_only_to_the_same_workload(
    one: Owner, two: Owner, end: tuple[str, str], other: tuple[str, str]
) -> None:
    def differs(owner: Owner, to: tuple[str, str]) -> tuple[str, ...]:
        return (*apart(owner)[1:], *to)  # the caller's own namespace is replaced

    keys = of_short_way(of_client(one), *end).key(), of_short_way(of_client(two), *other).key()
    assert (keys[0] == keys[1]) == (differs(one, end) == differs(two, other))


@given(OWNERS, OWNERS, PEERS)
def test_tunnels_are_a_certificates_and_a_namespaces(
    one: Owner, two: Owner, peer: tuple[str, str, str]
) -> None:
    """Whatever is known of callers stays out of their key."""
    keys = of_tunnel(of_client(one)).key(), of_tunnel(of_peer(of_client(two), *peer)).key()
    assert (keys[0] == keys[1]) == (apart(one)[:2] == apart(two)[:2])


_COPIED = (SECRET_STATE, NETNS_STATE, CALLER_STATE, SOURCE_STATE)


@given(st.tuples(*[_TEXT] * 4), st.tuples(*[_TEXT] * 4))
def test_copies_share_pools_as_the_requests_do(one: tuple[str, ...], two: tuple[str, ...]) -> None:
    keys = [of_copy(dict(zip(_COPIED, values, strict=True))).key() for values in (one, two)]
    assert (keys[0] == keys[1]) == (one == two)


def test_each_combination_of_what_is_noted_has_a_key_of_its_own() -> None:
    """Also those that read alike when they are put together."""
    words = ("", "a", "b", "ab", "a b")
    owners = [
        Owner("uid", netns, secret, caller=caller, address="x")
        for netns, secret, caller in itertools.product(words, repeat=3)
    ]
    hops = [of_client(owner) for owner in owners]
    hops += [of_peer(of_client(owner), san, san, "") for owner in owners for san in words[1:]]
    assert len({hop.key() for hop in hops}) == len(hops)


def test_what_upstream_connections_need_is_there_beyond_each_internal_listener() -> None:
    owner = Owner("x", "/pins/100%", "secret", caller="spiffe://x", address="198.18.0.1")
    hop = of_client(owner)
    for _ in range(3):
        found = {name: hop.states[name] for name in (SECRET_STATE, NETNS_STATE)}
        assert found == {
            SECRET_STATE: ("secret", UNHASHED, TRANSITIVE),
            NETNS_STATE: ("/pins/100%", UNHASHED, TRANSITIVE),
        }
        hop = hop.next()
    tunneled = of_tunnel(hop)
    assert {tunneled.states[name][0] for name in (SECRET_STATE, NETNS_STATE)} == {
        "secret",
        "/pins/100%",
    }


def test_only_what_is_handed_over_once_is_hashed_beside_the_key() -> None:
    """A connection that is handed over has an upstream connection of its own in any case."""
    hop = Hop()
    owner = Owner("x", "/pins/x", "secret")
    addresses = {"DOWNSTREAM_LOCAL_ADDRESS": "1", "DOWNSTREAM_REMOTE_ADDRESS": "2"}
    hop.note(listener_values(filter_state.of_listener(owner, hands_over=True)), addresses)
    assert set(hop.hashed()) == {POOL_STATE, LOCAL_ADDRESS_STATE, REMOTE_ADDRESS_STATE}
    assert {hop.states[name][2] for name in hop.hashed() if name != POOL_STATE} == {ONCE}
    assert list(hop.next().hashed()) == [POOL_STATE]


def test_that_requests_name_their_callers_is_known_where_they_go_and_no_further() -> None:
    hop, owner = Hop(), Owner("x", "/pins/x", "secret")
    noted = filter_state.of_listener(owner, hands_over=False, names_callers=True)
    hop.note(listener_values(noted), {})
    assert REQUESTS_STATE in hop.next().states
    assert REQUESTS_STATE not in hop.next().next().states


def test_a_chain_of_a_gateway_keys_its_owner_as_a_listener_does() -> None:
    owner = Owner("x", "/pins/x", "secret", caller="spiffe://x", address="198.18.0.1")
    hop = Hop()
    chain = msgspec.structs.replace(_CHAIN, owner=owner, notes_peer=False)
    hop.note(chain_values(filter_state.of_chain(chain)), {"REQUESTED_SERVER_NAME": "x"})
    assert hop.key() == of_client(owner).key()
