"""Print the conditions of routes."""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import metadata_pb2, regex_pb2, string_pb2, value_pb2

from meshd.compile.envoy import tokens
from meshd.matching.conditions import ClaimMatch, HeaderMatch, QueryMatch, RouteMatch, TextMatch

_HeaderMatcher = route_components_pb2.HeaderMatcher
_QueryMatcher = route_components_pb2.QueryParameterMatcher


def route_match(match: RouteMatch) -> route_components_pb2.RouteMatch:
    made = _path(match.path)
    made.headers.extend(_header(header) for header in match.headers)
    made.query_parameters.extend(_query(parameter) for parameter in match.query)
    made.dynamic_metadata.extend(_claim(claim) for claim in match.claims)
    return made


def string_matcher(match: TextMatch) -> string_pb2.StringMatcher:
    if match.kind == "regex":
        return string_pb2.StringMatcher(safe_regex=_regex(match.value))
    if match.kind == "prefix":
        return string_pb2.StringMatcher(prefix=match.value, ignore_case=match.ignore_case)
    return string_pb2.StringMatcher(exact=match.value, ignore_case=match.ignore_case)


def _path(path: TextMatch) -> route_components_pb2.RouteMatch:
    if path.kind == "regex":
        return route_components_pb2.RouteMatch(safe_regex=_regex(path.value))
    case = {"value": False} if path.ignore_case else None
    if path.kind == "exact":
        return route_components_pb2.RouteMatch(path=path.value, case_sensitive=case)
    return route_components_pb2.RouteMatch(prefix=path.value, case_sensitive=case)


def _header(header: HeaderMatch) -> route_components_pb2.HeaderMatcher:
    if header.text is None:
        return _HeaderMatcher(name=header.name, present_match=True, invert_match=header.unwanted)
    return _HeaderMatcher(
        name=header.name,
        string_match=string_matcher(header.text),
        invert_match=header.unwanted,
        treat_missing_header_as_empty=header.unwanted,
    )


def _query(parameter: QueryMatch) -> route_components_pb2.QueryParameterMatcher:
    if parameter.text is None:
        return _QueryMatcher(name=parameter.name, present_match=True)
    return _QueryMatcher(name=parameter.name, string_match=string_matcher(parameter.text))


def _claim(claim: ClaimMatch) -> metadata_pb2.MetadataMatcher:
    value = (
        value_pb2.ValueMatcher(present_match=True)
        if claim.text is None
        else tokens.text_or_list(string_matcher(claim.text))
    )
    made = tokens.said(claim.names, value)
    made.invert = claim.unwanted
    return made


def _regex(pattern: str) -> regex_pb2.RegexMatcher:
    """Return a RE2 pattern, which must match the whole text."""
    return regex_pb2.RegexMatcher(regex=pattern)
