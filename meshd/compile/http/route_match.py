"""Envoy's RouteMatch of an HTTPMatchRequest.

What holds for all requests of a scope on a port (client's labels, port, gateway) is decided here
and leaves no trace in the result.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from meshd.api.gateway.types import MESH, gateway_name
from meshd.api.traffic import HTTPMatchRequest, HTTPRoute, StringMatch
from meshd.api.virtual_service.types import is_claim
from meshd.compile.scope import Match, Scope

_HeaderMatcher = route_components_pb2.HeaderMatcher
_PSEUDO_HEADERS: Final = frozenset({"uri", "scheme", "method", "authority"})
"""Header names that the API ignores in ``headers``: they have fields of their own."""


class Entrance(msgspec.Struct, frozen=True):
    """The place where requests come in: from which clients, through what, and on which port."""

    scope: Scope
    port: int
    gateways: frozenset[str] = frozenset({MESH})
    """``NAMESPACE/NAME`` of the gateways that share the port, or ``mesh``."""


def applies(match: Match, entrance: Entrance, owner: str) -> bool:
    """Return whether the match can hold at this entrance; ``owner`` is its VirtualService's
    namespace."""
    if match.port and match.port != entrance.port:
        return False
    if isinstance(match, HTTPMatchRequest) and any(map(is_claim, match.headers)):
        return False
    named: Collection[str] = {gateway_name(name, owner) for name in match.gateways}
    if named and not named & entrance.gateways:
        return False
    return entrance.scope.is_source_of(match)


def applicable(
    route: HTTPRoute, entrance: Entrance, owner: str
) -> tuple[HTTPMatchRequest | None, ...]:
    """Return the matches of a route that can hold here; None stands for all requests."""
    if not route.match:
        return (None,)
    return tuple(match for match in route.match if applies(match, entrance, owner))


def is_unconditional(match: route_components_pb2.RouteMatch) -> bool:
    """Return whether a RouteMatch holds for each request, so that routes after it are never
    reached."""
    everything = match.prefix == "/" or match.safe_regex.regex in {".*", "/.*"}
    return everything and not match.headers and not match.query_parameters


def route_match(match: HTTPMatchRequest | None) -> route_components_pb2.RouteMatch:
    """Return the conditions on a request itself."""
    if match is None:
        return route_components_pb2.RouteMatch(prefix="/")
    pseudo = {
        name: pattern
        for name, pattern in (
            (":method", match.method),
            (":authority", match.authority),
            (":scheme", match.scheme),
        )
        if pattern and not _is_empty(pattern)
    }
    headers = [
        *(_header(name, wanted) for name, wanted in sorted(match.headers.items()) if _real(name)),
        *(
            _absent(name, unwanted)
            for name, unwanted in sorted(match.without_headers.items())
            if _real(name)
        ),
        *(_header(name, wanted) for name, wanted in pseudo.items()),
    ]
    made = _path(match)
    made.headers.extend(headers)
    made.query_parameters.extend(
        _query_parameter(name, wanted) for name, wanted in sorted(match.query_params.items())
    )
    return made


def _path(match: HTTPMatchRequest) -> route_components_pb2.RouteMatch:
    uri = match.uri or StringMatch()
    if uri.regex is not None:
        return route_components_pb2.RouteMatch(safe_regex=regex(uri.regex))
    case = {"value": False} if match.ignore_uri_case else None
    if uri.exact is not None:
        return route_components_pb2.RouteMatch(path=uri.exact, case_sensitive=case)
    return route_components_pb2.RouteMatch(prefix=uri.prefix or "/", case_sensitive=case)


def regex(pattern: str) -> regex_pb2.RegexMatcher:
    """Return a RE2 pattern, which must match the whole text."""
    return regex_pb2.RegexMatcher(regex=pattern)


def string_matcher(match: StringMatch, *, ignore_case: bool = False) -> string_pb2.StringMatcher:
    if match.regex is not None:
        return string_pb2.StringMatcher(safe_regex=regex(match.regex))
    if match.prefix == "":
        return string_pb2.StringMatcher(safe_regex=regex(".*"))
    if match.prefix is not None:
        return string_pb2.StringMatcher(prefix=match.prefix, ignore_case=ignore_case)
    return string_pb2.StringMatcher(exact=match.exact or "", ignore_case=ignore_case)


def _is_empty(match: StringMatch) -> bool:
    return match.exact is None and not match.prefix and match.regex is None


def _any_value(match: StringMatch) -> bool:
    """Return whether the match asks only that any value exists."""
    return _is_empty(match) or match.regex in {"*", ".*"}


def _real(name: str) -> bool:
    """Return whether a header is not a claim; no request has a claim, so its absence always
    holds."""
    return name.lower() not in _PSEUDO_HEADERS and not is_claim(name)


def _header(name: str, match: StringMatch) -> route_components_pb2.HeaderMatcher:
    if _any_value(match):
        return _HeaderMatcher(name=name, present_match=True)
    ignore_case = name == ":authority"
    return _HeaderMatcher(name=name, string_match=string_matcher(match, ignore_case=ignore_case))


def _absent(name: str, match: StringMatch) -> route_components_pb2.HeaderMatcher:
    """Return a match that holds if the header is missing or has another value."""
    if _any_value(match):
        return _HeaderMatcher(name=name, present_match=True, invert_match=True)
    return _HeaderMatcher(
        name=name,
        string_match=string_matcher(match),
        invert_match=True,
        treat_missing_header_as_empty=True,
    )


def _query_parameter(name: str, match: StringMatch) -> route_components_pb2.QueryParameterMatcher:
    if _any_value(match):
        return route_components_pb2.QueryParameterMatcher(name=name, present_match=True)
    return route_components_pb2.QueryParameterMatcher(name=name, string_match=string_matcher(match))
