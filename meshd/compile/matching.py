# pyright: reportAttributeAccessIssue=false
"""Which of a listener's filter chains takes a connection, as one tree of questions.

A match in each chain says the same, but Envoy builds tables for it that take kilobytes for each
address and protocol. What no question leads to a chain goes to the listener's default one:
https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/advanced/matching/matching_api
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from google.protobuf import wrappers_pb2
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from meshd.compile.wellknown import packed

_Matcher = matcher_pb2.Matcher
_MESH_PROTOCOL: Final = "'istio"
"""How each protocol begins that the mesh's mutual TLS may offer, in Envoy's list of what a client
does: ``'istio-http/1.1','istio'``."""


def to_chain(name: str) -> Any:
    return _Matcher.OnMatch(action=_extension(name, wrappers_pb2.StringValue(value=name)))


def by_port(ways: Mapping[int, Any], otherwise: Any = None) -> Any:
    """By the port that the client wanted. A way that ends nowhere goes on with ``otherwise``."""
    named = {str(port): way for port, way in ways.items()}
    return _by("port", network_inputs_pb2.DestinationPortInput(), named, otherwise)


def by_address(ways: Mapping[str, Any]) -> Any:
    """By the address that the client wanted."""
    return _by("address", network_inputs_pb2.DestinationIPInput(), ways, None)


def by_mesh_tls(offered: Any, otherwise: Any) -> Any:
    """Whether the client offers the mesh's mutual TLS; the TLS inspector must have looked."""
    predicate = _Matcher.MatcherList.Predicate
    single = predicate.SinglePredicate(
        input=_extension("protocols", network_inputs_pb2.ApplicationProtocolInput()),
        value_match={"contains": _MESH_PROTOCOL},
    )
    question = _Matcher.MatcherList.FieldMatcher(
        predicate=predicate(single_predicate=single), on_match=offered
    )
    questions = _Matcher.MatcherList(matchers=[question])
    return _Matcher.OnMatch(matcher=_Matcher(matcher_list=questions, on_no_match=otherwise))


def _by(name: str, what: Any, ways: Mapping[str, Any], otherwise: Any) -> Any:
    tree = _Matcher.MatcherTree(input=_extension(name, what))
    for value, way in ways.items():
        tree.exact_match_map.map[value].CopyFrom(way)
    return _Matcher.OnMatch(matcher=_Matcher(matcher_tree=tree, on_no_match=otherwise))


def _extension(name: str, message: Any) -> Any:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(message))
