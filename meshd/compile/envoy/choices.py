"""Prints how a listener chooses a chain, as one of Envoy's trees of matchers.

A match in each chain says the same, but Envoy builds tables for it that take kilobytes for each
address and protocol. What no question leads to a chain goes to the listener's default one:
https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/advanced/matching/matching_api
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final

from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from google.protobuf import wrappers_pb2
from google.protobuf.message import Message
from xds.core.v3 import cidr_pb2, extension_pb2
from xds.type.matcher.v3 import ip_pb2, matcher_pb2

from meshd.compile.envoy import authorization
from meshd.compile.envoy.wellknown import (
    CALLER_STATE,
    HTTP10_FIRST_LINE,
    HTTP_FIRST_LINE,
    REQUESTS,
    REQUESTS_STATE,
    RETURNED,
    RETURNED_STATE,
    WORKLOAD_STATE,
    packed,
)
from meshd.compile.plan.choices import (
    ByAddress,
    ByBeginning,
    ByHttp,
    ByMeshTls,
    ByNetwork,
    ByOtherPort,
    ByPort,
    ByRequests,
    ByReturn,
    ByRules,
    ByServerName,
    ByTls,
    ByWorkload,
    To,
    Way,
)

_Matcher = matcher_pb2.Matcher
_OnMatch = matcher_pb2.Matcher.OnMatch
_Extension = extension_pb2.TypedExtensionConfig


def _input(name: str, message: Message) -> extension_pb2.TypedExtensionConfig:
    return _Extension(name=name, typed_config=packed(message))


_PORT: Final = _input("port", network_inputs_pb2.DestinationPortInput())
_ADDRESS: Final = _input("address", network_inputs_pb2.DestinationIPInput())
_CALLER: Final = _input("caller", network_inputs_pb2.FilterStateInput(key=CALLER_STATE))
_WORKLOAD: Final = _input("state", network_inputs_pb2.FilterStateInput(key=WORKLOAD_STATE))
_REQUESTS: Final = _input("requests", network_inputs_pb2.FilterStateInput(key=REQUESTS_STATE))
_RETURNED: Final = _input("returned", network_inputs_pb2.FilterStateInput(key=RETURNED_STATE))
_TRANSPORT: Final = _input("transport", network_inputs_pb2.TransportProtocolInput())
_SERVER_NAME: Final = _input("server name", network_inputs_pb2.ServerNameInput())
_PROTOCOLS: Final = _input("protocols", network_inputs_pb2.ApplicationProtocolInput())
_MESH_PROTOCOL: Final = "'istio"
"""How each protocol begins that the mesh's mutual TLS may offer, in Envoy's list of what a client
does: ``'istio-http/1.1','istio'``."""


def matcher(way: Way) -> matcher_pb2.Matcher:
    """Return the tree; one without a question is a tree, too."""
    out = _OnMatch()
    _write(out, way)
    return out.matcher if out.HasField("matcher") else _Matcher(on_no_match=out)


def of_callers(
    callers: Iterable[str], tree: matcher_pb2.Matcher, refused: str
) -> matcher_pb2.Matcher:
    """Return a tree for these callers only; the connections of all others go to one chain."""
    made = _Matcher()
    if known := [_is_caller(caller) for caller in callers]:
        question = made.matcher_list.matchers.add()
        question.on_match.matcher.CopyFrom(tree)
        if len(known) == 1:  # of fewer than two, there is no list
            question.predicate.CopyFrom(known[0])
        else:
            question.predicate.or_matcher.predicate.extend(known)
    made.on_no_match.action.CopyFrom(_action(refused))
    return made


def _is_caller(caller: str) -> matcher_pb2.Matcher.MatcherList.Predicate:
    made = _Matcher.MatcherList.Predicate()
    made.single_predicate.input.CopyFrom(_CALLER)
    made.single_predicate.value_match.exact = caller
    return made


def _write(out: matcher_pb2.Matcher.OnMatch, way: Way) -> None:
    """Write into ``out``, rather than copy what is made from level to level."""
    match way:
        case To():
            out.action.CopyFrom(_action(way.chain))
        case ByPort(ways, otherwise):
            named = {str(port): way for port, way in ways.items()}
            _exact(out.matcher, _PORT, named, otherwise)
        case ByAddress(ways, otherwise) | ByWorkload(ways, otherwise):
            asked = _ADDRESS if isinstance(way, ByAddress) else _WORKLOAD
            _exact(out.matcher, asked, ways, otherwise)
        case ByNetwork(ways, otherwise):
            _networks(out.matcher, ways, otherwise)
        case ByBeginning(beginnings, then):
            for beginning in beginnings:
                _if(out.matcher, _ADDRESS, then, prefix=beginning)
        case ByRules():
            _rules(out, way)
        case ByRequests(version, then, otherwise):
            _exact(out.matcher, _REQUESTS, {f"{REQUESTS}-{version}": then}, otherwise)
        case ByOtherPort() | ByReturn() | ByTls():
            _one_of_two(out, way)
        case ByServerName():
            _server_name(out.matcher, way)
        case ByHttp(http, otherwise, http10):
            protocols = (*HTTP_FIRST_LINE, HTTP10_FIRST_LINE) if http10 else HTTP_FIRST_LINE
            ways = {f"'{protocol}'": http for protocol in protocols}
            _exact(out.matcher, _PROTOCOLS, ways, otherwise)
        case ByMeshTls(offered, otherwise):
            _if(out.matcher, _PROTOCOLS, offered, contains=_MESH_PROTOCOL)
            _otherwise(out.matcher, otherwise)


@functools.lru_cache(maxsize=16384)
def _action(chain: str) -> extension_pb2.TypedExtensionConfig:
    return _Extension(name=chain, typed_config=packed(wrappers_pb2.StringValue(value=chain)))


def _otherwise(out: matcher_pb2.Matcher, way: Way | None) -> None:
    if way is not None:
        _write(out.on_no_match, way)


def _exact(
    out: matcher_pb2.Matcher,
    asked: extension_pb2.TypedExtensionConfig,
    ways: Mapping[str, Way],
    otherwise: Way | None,
) -> None:
    out.matcher_tree.input.CopyFrom(asked)
    answers = out.matcher_tree.exact_match_map.map
    for value, way in ways.items():
        _write(answers[value], way)
    _otherwise(out, otherwise)


def _if(
    out: matcher_pb2.Matcher,
    asked: extension_pb2.TypedExtensionConfig,
    way: Way,
    *,
    prefix: str = "",
    suffix: str = "",
    contains: str = "",
) -> None:
    """Add a question to a list, of which the first that is answered leads on."""
    question = out.matcher_list.matchers.add()
    single = question.predicate.single_predicate
    single.input.CopyFrom(asked)
    if prefix:
        single.value_match.prefix = prefix
    elif suffix:
        single.value_match.suffix = suffix
    else:
        single.value_match.contains = contains
    _write(question.on_match, way)


def _unless(
    out: matcher_pb2.Matcher,
    asked: extension_pb2.TypedExtensionConfig,
    values: Iterable[str],
    way: Way,
) -> None:
    """Ask whether something is none of some values. What it says if it is one may lead nowhere."""
    question = out.matcher_list.matchers.add()
    predicate = question.predicate.not_matcher
    first, *more = values
    of_each = [predicate]
    if more:  # of fewer than two, there is no list
        of_each = [predicate.or_matcher.predicate.add() for _ in (first, *more)]
    for each, value in zip(of_each, (first, *more), strict=True):
        each.single_predicate.input.CopyFrom(asked)
        each.single_predicate.value_match.exact = value
    _write(question.on_match, way)


def _rules(out: matcher_pb2.Matcher.OnMatch, way: ByRules) -> None:
    """Ask what denies, then what allows. A rule that always fits ends the list."""
    rules, refused = way.rules, To(way.refused)
    asked: list[tuple[authorization.Predicate, Way]] = []
    last = way.allowed if rules.allow is None else refused
    for rule, then in (
        *((rule, refused) for rule in rules.deny),
        *((rule, way.allowed) for rule in rules.allow or ()),
    ):
        predicate = authorization.fits(rule)
        if predicate is None:
            last = then
            break
        asked.append((predicate, then))
    if not asked:
        _write(out, last)
        return
    for predicate, then in asked:
        question = out.matcher.matcher_list.matchers.add()
        question.predicate.CopyFrom(predicate)
        _write(question.on_match, then)
    _write(out.matcher.on_no_match, last)


def _one_of_two(out: matcher_pb2.Matcher.OnMatch, way: ByOtherPort | ByReturn | ByTls) -> None:
    match way:
        case ByOtherPort(ports, others, these):
            _unless(out.matcher, _PORT, map(str, ports), others)
            _otherwise(out.matcher, these)
        case ByReturn(returned, otherwise):
            _unless(out.matcher, _RETURNED, [RETURNED], otherwise)
            _otherwise(out.matcher, returned)
        case ByTls(tls, plain):
            _tls(out, tls, plain)


def _tls(out: matcher_pb2.Matcher.OnMatch, tls: Way | None, plain: Way | None) -> None:
    """Ask whether the client speaks TLS, unless that makes no difference."""
    if isinstance(tls, To) and isinstance(plain, To) and tls.chain == plain.chain:
        _write(out, plain)
    elif plain is None:
        _exact(out.matcher, _TRANSPORT, {} if tls is None else {"tls": tls}, None)
    else:
        _unless(out.matcher, _TRANSPORT, ["tls"], plain)
        _otherwise(out.matcher, tls)


def _server_name(out: matcher_pb2.Matcher, way: ByServerName) -> None:
    if way.ways:
        wild = ByServerName({}, way.suffixes, way.otherwise) if way.suffixes else way.otherwise
        _exact(out, _SERVER_NAME, way.ways, wild)
        return
    for suffix, then in way.suffixes:
        _if(out, _SERVER_NAME, then, suffix=suffix)
    _otherwise(out, way.otherwise)


def _networks(out: matcher_pb2.Matcher, ways: Mapping[str, Way], otherwise: Way | None) -> None:
    """Ask for networks of several addresses: Envoy calls the matcher for them work in progress."""
    networks = ip_pb2.IPMatcher()
    for network, way in ways.items():
        made = networks.range_matchers.add()
        made.ranges.append(_range(network))
        _write(made.on_match, way)
    tree = out.matcher_tree
    tree.input.CopyFrom(_ADDRESS)
    tree.custom_match.name = "envoy.matching.custom_matchers.ip_range_matcher"
    tree.custom_match.typed_config.CopyFrom(packed(networks))
    _otherwise(out, otherwise)


def _range(text: str) -> cidr_pb2.CidrRange:
    network = ipaddress.ip_network(text)
    return cidr_pb2.CidrRange(
        address_prefix=str(network.network_address), prefix_len={"value": network.prefixlen}
    )
