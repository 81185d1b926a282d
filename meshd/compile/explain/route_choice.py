"""Chooses the route of a request in a compiled route configuration, as the proxy would. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qs

import re2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.type.matcher.v3 import string_pb2

from meshd.compile.traffic.virtual_addresses import listed


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """The parts of an HTTP request at which routes look."""

    host: str
    path: str = "/"
    """With its query."""
    method: str = "GET"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    """Names in lower case."""

    def header(self, name: str) -> str | None:
        pseudo = {
            ":method": self.method,
            ":authority": self.host,
            ":path": self.path,
            ":scheme": "http",
        }
        return pseudo.get(name, self.headers.get(name.lower()))


def choose_host(
    configuration: route_pb2.RouteConfiguration, request: Request
) -> route_components_pb2.VirtualHost | None:
    """Choose a virtual host: exact domains first, then the longest wildcard, then ``*``, without
    the port."""
    host = _without_port(request.host.lower())
    best: tuple[int, route_components_pb2.VirtualHost] | None = None
    for virtual_host in configuration.virtual_hosts:
        for domain in virtual_host.domains:
            if domain == host:
                return virtual_host
            fits = domain == "*" or (domain.startswith("*") and host.endswith(domain[1:]))
            if fits and (best is None or len(domain) > best[0]):
                best = (len(domain), virtual_host)
    return best[1] if best else None


def choose_route(
    virtual_host: route_components_pb2.VirtualHost, request: Request
) -> route_components_pb2.Route | None:
    """Return the first route that matches."""
    return next((r for r in listed(virtual_host) if _matches(r.match, request)), None)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _matches(match: route_components_pb2.RouteMatch, request: Request) -> bool:
    path, _, query = request.path.partition("?")
    return (
        _path_matches(match, path)
        and all(_header_matches(wanted, request) for wanted in match.headers)
        and _query_matches(match.query_parameters, query)
    )


def _path_matches(match: route_components_pb2.RouteMatch, path: str) -> bool:
    kind = match.WhichOneof("path_specifier")
    if kind == "safe_regex":
        return re2.fullmatch(match.safe_regex.regex, path) is not None
    wanted: str = getattr(match, kind)
    if match.HasField("case_sensitive") and not match.case_sensitive.value:
        wanted, path = wanted.lower(), path.lower()
    return path == wanted if kind == "path" else path.startswith(wanted)


def _header_matches(wanted: route_components_pb2.HeaderMatcher, request: Request) -> bool:
    value = request.header(wanted.name)
    if wanted.WhichOneof("header_match_specifier") == "present_match":
        found = (value is not None) == wanted.present_match
    elif value is None:
        if not wanted.treat_missing_header_as_empty:
            return False
        found = _text_matches(wanted.string_match, "")
    else:
        found = _text_matches(wanted.string_match, value)
    return found != wanted.invert_match


def _query_matches(
    wanted: Iterable[route_components_pb2.QueryParameterMatcher], query: str
) -> bool:
    values = parse_qs(query, keep_blank_values=True)
    for parameter in wanted:
        if parameter.name not in values:
            return False
        kind = parameter.WhichOneof("query_parameter_match_specifier")
        text = values[parameter.name][0]
        if kind == "string_match" and not _text_matches(parameter.string_match, text):
            return False
    return True


def _text_matches(matcher: string_pb2.StringMatcher, text: str) -> bool:
    kind = matcher.WhichOneof("match_pattern")
    if kind == "safe_regex":
        return re2.fullmatch(matcher.safe_regex.regex, text) is not None
    wanted: str = getattr(matcher, kind)
    if matcher.ignore_case:
        wanted, text = wanted.lower(), text.lower()
    return {
        "exact": text == wanted,
        "prefix": text.startswith(wanted),
        "suffix": text.endswith(wanted),
        "contains": wanted in text,
    }[kind]
