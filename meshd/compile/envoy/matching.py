"""Chooses by matchers: a virtual host's route by filter state, where a request's host does not say
it, and the requests that skip a filter:
https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/advanced/matching/matching_api
"""

from __future__ import annotations

from collections.abc import Mapping

from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf.message import Message
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2, regex_pb2, string_pb2

from meshd.compile.envoy.wellknown import packed

_Matcher = matcher_pb2.Matcher
Way = matcher_pb2.Matcher.OnMatch
"""Where a request goes: to a route, or on to the next question."""


def to_routes(routes: Message) -> Way:
    """Return a way to a route of HTTP, or to a list of which the first that matches counts."""
    return _Matcher.OnMatch(action=_extension("routes", routes))


def always(way: Way) -> matcher_pb2.Matcher:
    """Return a tree without a question."""
    return _Matcher(on_no_match=way)


def by_filter_state(key: str, ways: Mapping[str, Way], otherwise: Way | None = None) -> Way:
    """Ask for a value of the connection's filter state."""
    asked = network_inputs_pb2.FilterStateInput(key=key)
    tree = _Matcher.MatcherTree(input=_extension("state", asked))
    for value, way in ways.items():
        tree.exact_match_map.map[value].CopyFrom(way)
    return _Matcher.OnMatch(matcher=_Matcher(matcher_tree=tree, on_no_match=otherwise))


def unless_header(name: str, regex: str, action: Message) -> matcher_pb2.Matcher:
    """Return a matcher that takes an action unless a regular expression matches all of a header."""
    re2 = regex_pb2.RegexMatcher(google_re2=regex_pb2.RegexMatcher.GoogleRE2(), regex=regex)
    asked = http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=name)
    return _unless(_extension("header", asked), string_pb2.StringMatcher(safe_regex=re2), action)


def unless_noted(key: str, value: str, action: Message) -> matcher_pb2.Matcher:
    """Return a matcher that takes an action unless filter state has a value."""
    asked = network_inputs_pb2.FilterStateInput(key=key)
    return _unless(_extension("noted", asked), string_pb2.StringMatcher(exact=value), action)


def _unless(
    asked: extension_pb2.TypedExtensionConfig, wanted: string_pb2.StringMatcher, action: Message
) -> matcher_pb2.Matcher:
    listed = _Matcher.MatcherList
    matches = listed.Predicate.SinglePredicate(input=asked, value_match=wanted)
    differs = listed.Predicate(not_matcher=listed.Predicate(single_predicate=matches))
    chosen = _Matcher.OnMatch(action=_extension("action", action))
    matcher = listed.FieldMatcher(predicate=differs, on_match=chosen)
    return _Matcher(matcher_list=listed(matchers=[matcher]))


def _extension(name: str, message: Message) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(message))
