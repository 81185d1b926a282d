"""Chooses a listener's filter chain for a connection by one tree of questions.

A match in each chain says the same, but Envoy builds tables for it that take kilobytes for each
address and protocol. What no question leads to a chain goes to the listener's default one:
https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/advanced/matching/matching_api
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final

from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from google.protobuf import wrappers_pb2
from google.protobuf.message import Message
from xds.core.v3 import cidr_pb2, extension_pb2
from xds.type.matcher.v3 import ip_pb2, matcher_pb2

from meshd.compile.envoy.wellknown import HTTP10_FIRST_LINE, HTTP_FIRST_LINE, WORKLOAD_STATE, packed
from meshd.compile.hosts import specificity

_Matcher = matcher_pb2.Matcher
Way = matcher_pb2.Matcher.OnMatch
"""Where a connection goes: to a chain, or on to the next question."""
_Extension = extension_pb2.TypedExtensionConfig
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MESH_PROTOCOL: Final = "'istio"
"""How each protocol begins that the mesh's mutual TLS may offer, in Envoy's list of what a client
does: ``'istio-http/1.1','istio'``."""


def to_chain(name: str) -> Way:
    return _Matcher.OnMatch(action=_extension(name, wrappers_pb2.StringValue(value=name)))


def to_routes(routes: Message) -> Way:
    """Return a way to a route of HTTP, or to a list of which the first that matches counts."""
    return _Matcher.OnMatch(action=_extension("routes", routes))


def always(way: Way) -> matcher_pb2.Matcher:
    """Return a tree without a question."""
    return _Matcher(on_no_match=way)


def by_port(ways: Mapping[int, Way], otherwise: Way | None = None) -> Way:
    """Ask for the port that the client wanted; a way that ends nowhere goes on with
    ``otherwise``."""
    named = {str(port): way for port, way in ways.items()}
    return _by("port", network_inputs_pb2.DestinationPortInput(), named, otherwise)


def by_address(ways: Mapping[str, Way], otherwise: Way | None = None) -> Way:
    """Ask for the address that the client wanted."""
    return _by("address", network_inputs_pb2.DestinationIPInput(), ways, otherwise)


def by_network(ways: Mapping[str, Way], otherwise: Way | None = None) -> Way | None:
    """Ask for the network (or address) of the address that the client wanted.

    A way that ends nowhere goes on with that of the next larger network, and at last with
    ``otherwise``.
    """
    networks = {ipaddress.ip_network(text): way for text, way in ways.items()}
    large = {network: way for network, way in networks.items() if network.num_addresses > 1}
    single = {
        str(network.network_address): way
        for network, way in networks.items()
        if network not in large
    }
    if large:
        otherwise = _by_range(large, otherwise)
    return by_address(single, otherwise) if single else otherwise


def _by_range(ways: Mapping[_Network, Way], otherwise: Way | None) -> Way:
    """Ask for networks of several addresses: Envoy calls the matcher for them work in progress."""
    matchers = [
        ip_pb2.IPMatcher.IPRangeMatcher(
            ranges=[
                cidr_pb2.CidrRange(
                    address_prefix=str(network.network_address),
                    prefix_len={"value": network.prefixlen},
                )
            ],
            on_match=way,
        )
        for network, way in ways.items()
    ]
    tree = _Matcher.MatcherTree(
        input=_extension("address", network_inputs_pb2.DestinationIPInput()),
        custom_match=_extension(
            "envoy.matching.custom_matchers.ip_range_matcher",
            ip_pb2.IPMatcher(range_matchers=matchers),
        ),
    )
    return _Matcher.OnMatch(matcher=_Matcher(matcher_tree=tree, on_no_match=otherwise))


def by_prefix(prefixes: Iterable[str], way: Way) -> Way:
    """Ask for the beginning, as text, of the address that the client wanted."""
    asked = network_inputs_pb2.DestinationIPInput()
    questions = [_if("address", asked, {"prefix": prefix}, way) for prefix in prefixes]
    return _Matcher.OnMatch(matcher=_Matcher(matcher_list=_Matcher.MatcherList(matchers=questions)))


def by_workload(ways: Mapping[str, Way], otherwise: Way | None = None) -> Way:
    """Ask for the uid of the connection's workload."""
    return by_filter_state(WORKLOAD_STATE, ways, otherwise)


def by_filter_state(key: str, ways: Mapping[str, Way], otherwise: Way | None = None) -> Way:
    """Ask for a value of the connection's filter state."""
    return _by("state", network_inputs_pb2.FilterStateInput(key=key), ways, otherwise)


def by_tls(tls: Way | None, otherwise: Way | None) -> Way:
    """Ask whether the client speaks TLS; the TLS inspector must have looked.

    Where the way of one ends nowhere, the other is not taken.
    """
    asked = network_inputs_pb2.TransportProtocolInput()
    if otherwise is None:
        return _by("transport", asked, {} if tls is None else {"tls": tls}, None)
    is_tls = _predicate("transport", asked, {"exact": "tls"})
    plain = _Matcher.MatcherList.FieldMatcher(
        predicate=_Matcher.MatcherList.Predicate(not_matcher=is_tls), on_match=otherwise
    )
    matcher = _Matcher(matcher_list=_Matcher.MatcherList(matchers=[plain]), on_no_match=tls)
    return _Matcher.OnMatch(matcher=matcher)


def by_server_name(ways: Mapping[str, Way], otherwise: Way | None = None) -> Way | None:
    """Ask for the name in the TLS hello; of wildcards (``*.example.com``), the longest that fits
    wins."""
    exact = {name: way for name, way in ways.items() if not name.startswith("*")}
    wild = sorted((name for name in ways if name.startswith("*")), key=specificity)
    if wild:
        suffixes = [_has_suffix(name.removeprefix("*"), ways[name]) for name in wild]
        matcher = _Matcher(
            matcher_list=_Matcher.MatcherList(matchers=suffixes), on_no_match=otherwise
        )
        otherwise = _Matcher.OnMatch(matcher=matcher)
    if not exact:
        return otherwise
    return _by("server name", network_inputs_pb2.ServerNameInput(), exact, otherwise)


def by_http(http: Way, otherwise: Way | None, *, http10: bool = False) -> Way:
    """Ask whether the first line is one of HTTP; the HTTP inspector must have looked.

    HTTP/1.0, which may lack a host, only counts with ``http10``.
    """
    protocols = (*HTTP_FIRST_LINE, HTTP10_FIRST_LINE) if http10 else HTTP_FIRST_LINE
    first_lines = {f"'{protocol}'": http for protocol in protocols}
    return _by("protocols", network_inputs_pb2.ApplicationProtocolInput(), first_lines, otherwise)


def by_mesh_tls(offered: Way, otherwise: Way | None) -> Way:
    """Ask whether the client offers the mesh's mutual TLS; the TLS inspector must have looked."""
    protocols = network_inputs_pb2.ApplicationProtocolInput()
    question = _if("protocols", protocols, {"contains": _MESH_PROTOCOL}, offered)
    questions = _Matcher.MatcherList(matchers=[question])
    return _Matcher.OnMatch(matcher=_Matcher(matcher_list=questions, on_no_match=otherwise))


def _has_suffix(suffix: str, way: Way) -> matcher_pb2.Matcher.MatcherList.FieldMatcher:
    return _if("server name", network_inputs_pb2.ServerNameInput(), {"suffix": suffix}, way)


def _if(
    name: str, what: Message, value: Mapping[str, str], way: Way
) -> matcher_pb2.Matcher.MatcherList.FieldMatcher:
    return _Matcher.MatcherList.FieldMatcher(predicate=_predicate(name, what, value), on_match=way)


def _predicate(
    name: str, what: Message, value: Mapping[str, str]
) -> matcher_pb2.Matcher.MatcherList.Predicate:
    predicate = _Matcher.MatcherList.Predicate
    single = predicate.SinglePredicate(input=_extension(name, what), value_match=value)
    return predicate(single_predicate=single)


def _by(name: str, what: Message, ways: Mapping[str, Way], otherwise: Way | None) -> Way:
    tree = _Matcher.MatcherTree(input=_extension(name, what))
    for value, way in ways.items():
        tree.exact_match_map.map[value].CopyFrom(way)
    return _Matcher.OnMatch(matcher=_Matcher(matcher_tree=tree, on_no_match=otherwise))


def _extension(name: str, message: Message) -> _Extension:
    return _Extension(name=name, typed_config=packed(message))
