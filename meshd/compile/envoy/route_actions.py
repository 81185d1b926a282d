"""Print actions of routes: forwarding, redirects and direct responses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2
from envoy.type.matcher.v3 import regex_pb2

from meshd.compile.envoy.copy_headers import DESTINATION, HEADERS, LOOKED_UP, STATES
from meshd.compile.envoy.idempotence import NOT_SENT
from meshd.compile.envoy.route_filters import fraction
from meshd.compile.envoy.weights import summable
from meshd.compile.envoy.wellknown import packed, seconds
from meshd.compile.names import MIRROR
from meshd.compile.plan.routes import (
    DirectResponse,
    Forward,
    Hashing,
    HeaderAddition,
    Mirror,
    Redirect,
    Retries,
    Target,
)

_Action = route_components_pb2.RouteAction
_Mutation = mutation_rules_pb2.HeaderMutation
_Option = base_pb2.HeaderValueOption
_Redirect = route_components_pb2.RedirectAction
_Retry = route_components_pb2.RetryPolicy
_STATUSES: Final = {
    301: _Redirect.MOVED_PERMANENTLY,
    302: _Redirect.FOUND,
    303: _Redirect.SEE_OTHER,
    307: _Redirect.TEMPORARY_REDIRECT,
    308: _Redirect.PERMANENT_REDIRECT,
}
_HOST_SELECTION_ATTEMPTS: Final = 5


def redirect(planned: Redirect) -> route_components_pb2.RedirectAction:
    return _Redirect(
        host_redirect=planned.host,
        path_redirect=planned.path or None,
        prefix_rewrite=planned.prefix or None,
        scheme_redirect=planned.scheme or None,
        response_code=_STATUSES[planned.status],
        port_redirect=planned.port,
    )


def direct_response(planned: DirectResponse) -> route_components_pb2.DirectResponseAction:
    body = None
    if isinstance(planned.body, str):
        body = base_pb2.DataSource(inline_string=planned.body)
    elif planned.body is not None:
        body = base_pb2.DataSource(inline_bytes=planned.body)
    return route_components_pb2.DirectResponseAction(status=planned.status, body=body)


def forward(planned: Forward) -> route_components_pb2.RouteAction:
    action = _Action(
        timeout=seconds(planned.timeout),
        retry_policy=retry_policy(planned.retries),
        hash_policy=map(hash_policy, planned.hashing),
        request_mirror_policies=map(mirror_policy, planned.mirrors),
        host_rewrite_literal=planned.host or None,
        prefix_rewrite=planned.prefix_rewrite,
    )
    if planned.unknown_is_unavailable:
        action.cluster_not_found_response_code = _Action.SERVICE_UNAVAILABLE
    if rewrite := planned.regex_rewrite:
        action.regex_rewrite.CopyFrom(
            regex_pb2.RegexMatchAndSubstitute(
                pattern=regex_pb2.RegexMatcher(regex=rewrite.pattern),
                substitution=rewrite.substitution,
            )
        )
    if len(planned.targets) == 1:
        action.cluster = planned.targets[0].upstream
    else:
        weights = summable([target.weight for target in planned.targets])
        action.weighted_clusters.clusters.extend(map(_weight, planned.targets, weights))
    return action


def _weight(target: Target, weight: int) -> route_components_pb2.WeightedCluster.ClusterWeight:
    return route_components_pb2.WeightedCluster.ClusterWeight(
        name=target.upstream,
        weight={"value": weight},
        host_rewrite_literal=target.host or None,
        request_headers_to_add=header_options(target.changes.request_additions),
        request_headers_to_remove=target.changes.request_removals,
        response_headers_to_add=header_options(target.changes.response_additions),
        response_headers_to_remove=target.changes.response_removals,
    )


def header_options(additions: Iterable[HeaderAddition]) -> list[base_pb2.HeaderValueOption]:
    return [_option(each.name, each.value, append=each.append) for each in additions]


def _option(name: str, value: str, *, append: bool = False) -> base_pb2.HeaderValueOption:
    return _Option(
        header=base_pb2.HeaderValue(key=name, value=value),
        append_action=_Option.APPEND_IF_EXISTS_OR_ADD
        if append
        else _Option.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def retry_policy(planned: Retries | None) -> _Retry | None:
    if planned is None:
        return None
    policy = _Retry(
        retry_on=planned.conditions,
        retriable_status_codes=planned.status_codes,
        num_retries={"value": planned.attempts},
    )
    if planned.not_sent:
        policy.retriable_headers.add(name=NOT_SENT, present_match=True)
    if planned.elsewhere:
        policy.retry_host_predicate.add(
            name="envoy.retry_host_predicates.previous_hosts",
            typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
        )
        policy.host_selection_retry_max_attempts = _HOST_SELECTION_ATTEMPTS
    if planned.per_try_timeout:
        policy.per_try_timeout.CopyFrom(seconds(planned.per_try_timeout))
    if planned.backoff:
        # Envoy takes ten times the base for the longest wait.
        policy.retry_back_off.base_interval.CopyFrom(seconds(planned.backoff))
    if planned.other_localities:
        policy.retry_priority.name = "envoy.retry_priorities.previous_priorities"
        policy.retry_priority.typed_config.CopyFrom(
            packed(previous_priorities_config_pb2.PreviousPrioritiesConfig(update_frequency=2))
        )
    return policy


def hash_policy(planned: Hashing) -> route_components_pb2.RouteAction.HashPolicy:
    policy = _Action.HashPolicy
    if planned.by == "header":
        return policy(header=policy.Header(header_name=planned.name))
    if planned.by == "address":
        return policy(connection_properties=policy.ConnectionProperties(source_ip=True))
    if planned.by == "query":
        return policy(query_parameter=policy.QueryParameter(name=planned.name))
    return policy(
        cookie=policy.Cookie(
            name=planned.name,
            path=planned.path,
            ttl=None if planned.ttl is None else seconds(planned.ttl),
            attributes=[
                policy.CookieAttribute(name=name, value=value) for name, value in planned.attributes
            ],
        )
    )


def mirror_policy(planned: Mirror) -> route_components_pb2.RouteAction.RequestMirrorPolicy:
    """Return the part of a route that sends copies of requests to an upstream, through the
    listener for copies."""
    values = {name: f"%FILTER_STATE({state}:PLAIN)%" for state, name in STATES.items()}
    values[DESTINATION] = planned.upstream.replace("%", "%%")
    if planned.looked_up:
        values[LOOKED_UP] = "true"
    return _Action.RequestMirrorPolicy(
        cluster=MIRROR,
        runtime_fraction=base_pb2.RuntimeFractionalPercent(default_value=fraction(planned.percent)),
        trace_sampled={"value": False},
        # Else "-shadow" is part of the host's name, which would be looked up so.
        disable_shadow_host_suffix_append=planned.looked_up,
        # An empty value sets nothing: what a client wrote there is taken off first.
        request_headers_mutations=[
            *(_Mutation(remove=name) for name in HEADERS),
            *(_Mutation(append=_option(name, value)) for name, value in values.items()),
        ],
    )
