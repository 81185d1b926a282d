"""Print the routes of the server's side."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Final

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from envoy.type.matcher.v3 import filter_state_pb2, regex_pb2, string_pb2
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from meshd.compile.envoy import authorization
from meshd.compile.envoy.asking import EARLY_HEADERS
from meshd.compile.envoy.idempotence import NOT_SENT, PATTERN
from meshd.compile.envoy.wellknown import (
    CLIENT_CERTIFICATE_STATE,
    PEER_STATE,
    REQUESTS,
    REQUESTS_STATE,
    WORKLOAD_STATE,
    packed,
    seconds,
)
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.inbound_routes import InboundRoute, InboundRoutes

_WORKLOAD: Final = extension_pb2.TypedExtensionConfig(
    name="workload",
    typed_config=packed(network_inputs_pb2.FilterStateInput(key=WORKLOAD_STATE)),
)
CLIENT_CERTIFICATE: Final = "x-forwarded-client-cert"
_MISDIRECTED: Final = 421
"""RFC 9110, section 15.5.20: this connection is none for such requests."""
_Option: Final = base_pb2.HeaderValueOption
_ACTIONS: Final = {
    "replace": _Option.OVERWRITE_IF_EXISTS_OR_ADD,
    "append": _Option.APPEND_IF_EXISTS_OR_ADD,
}


def inbound_routes(planned: InboundRoutes) -> route_pb2.RouteConfiguration:
    routes = [made for route in planned.routes for made in _routes(planned, route)]
    judges = planned.guards or planned.misdirected
    host = route_components_pb2.VirtualHost(
        name=f"inbound|{planned.application.port}||",
        domains=["*"],
        routes=() if judges else routes,
        matcher=_by_workload(planned, routes) if judges else None,
    )
    return route_pb2.RouteConfiguration(
        name=planned.name,
        virtual_hosts=[host],
        validate_clusters={"value": False},
        # The proxy's own to say, not the application's.
        response_headers_to_remove=[NOT_SENT],
    )


def _by_workload(
    planned: InboundRoutes, routes: Sequence[route_components_pb2.Route]
) -> matcher_pb2.Matcher:
    """Return a tree that gives the requests of guarded workloads the same routes with what they are
    judged by, or refuses them."""
    made = matcher_pb2.Matcher()
    made.matcher_tree.input.CopyFrom(_WORKLOAD)
    for uid in planned.misdirected:
        made.matcher_tree.exact_match_map.map[uid].action.CopyFrom(_refusal())
    actions: dict[Authorization, extension_pb2.TypedExtensionConfig] = {}
    for uid, rules in planned.guards.items():  # which many have in common
        if rules not in actions:
            actions[rules] = _judging(rules, routes)
        made.matcher_tree.exact_match_map.map[uid].action.CopyFrom(actions[rules])
    made.on_no_match.action.CopyFrom(_action(route_components_pb2.RouteList(routes=routes)))
    return made


def _judging(
    rules: Authorization, routes: Sequence[route_components_pb2.Route]
) -> extension_pb2.TypedExtensionConfig:
    judged = authorization.per_route(rules, inside=True)
    found = route_components_pb2.RouteList(routes=routes)
    for route in found.routes:
        for name, rule in judged.items():
            route.typed_per_filter_config[name].CopyFrom(rule)
        if rules.asking is not None and route.request_headers_to_add:
            _name_caller_early(route)
    return _action(found)


def _name_caller_early(route: route_components_pb2.Route) -> None:
    """Have the caller's element written before a provider is asked, which is shown it."""
    additions = list(route.request_headers_to_add)
    del route.request_headers_to_add[:]
    mutations = [mutation_rules_pb2.HeaderMutation(append=one) for one in additions]
    written = header_mutation_pb2.Mutations(request_mutations=mutations)
    route.typed_per_filter_config[EARLY_HEADERS].CopyFrom(
        packed(header_mutation_pb2.HeaderMutationPerRoute(mutations=written))
    )


@functools.cache
def _refusal() -> extension_pb2.TypedExtensionConfig:
    """Return what refuses all requests. It is shared: copy, never change."""
    answer = route_components_pb2.DirectResponseAction(status=_MISDIRECTED)
    match = route_components_pb2.RouteMatch(prefix="/")
    route = route_components_pb2.Route(name="misdirected", match=match, direct_response=answer)
    return _action(route_components_pb2.RouteList(routes=[route]))


def _action(routes: route_components_pb2.RouteList) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig(name="routes", typed_config=packed(routes))


def _routes(planned: InboundRoutes, route: InboundRoute) -> Iterator[route_components_pb2.Route]:
    """Yield the route of requests that may be repeated, and that of the others."""
    retries = route_components_pb2.RetryPolicy(
        retry_on="reset", num_retries={"value": planned.repeats}
    )
    callers = [_called_by(route.callers)] if route.callers else []
    if route.names_caller:
        callers.append(_NAMES_CALLER)
    for methods, policy in (([_idempotent()], retries), ([], None)):
        yield route_components_pb2.Route(
            name=route.name,
            match=route_components_pb2.RouteMatch(
                prefix="/", headers=methods, filter_state=callers
            ),
            route=route_components_pb2.RouteAction(
                cluster=str(planned.application), timeout=seconds(0), retry_policy=policy
            ),
            request_headers_to_add=_certificate(route),
        )


def _idempotent() -> route_components_pb2.HeaderMatcher:
    matcher = string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=PATTERN))
    return route_components_pb2.HeaderMatcher(name=":method", string_match=matcher)


def _called_by(names: Sequence[str]) -> filter_state_pb2.FilterStateMatcher:
    regex = "|".join(map(re.escape, names))
    return filter_state_pb2.FilterStateMatcher(
        key=PEER_STATE,
        string_match=string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex)),
    )


_NAMES_CALLER: Final = filter_state_pb2.FilterStateMatcher(
    key=REQUESTS_STATE, string_match=string_pb2.StringMatcher(prefix=f"{REQUESTS}-")
)


def _certificate(route: InboundRoute) -> list[base_pb2.HeaderValueOption]:
    """Return what writes the caller's element, if anything does."""
    if route.certificate == "keep":
        return []
    element = base_pb2.HeaderValue(
        key=CLIENT_CERTIFICATE, value=f"%FILTER_STATE({CLIENT_CERTIFICATE_STATE}:PLAIN)%"
    )
    return [_Option(header=element, append_action=_ACTIONS[route.certificate])]
