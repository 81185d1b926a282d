"""Prints who may send what: as filters of HTTP, and as questions of a listener's tree.

A request is judged by two filters, one that denies and one that allows, after one that reads its
token. What they judge by is told
in routes, so that a policy that changes holds for the next request of any connection. A connection
that is not HTTP is judged when a chain is chosen for it, before anything is connected or sent.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from envoy.config.core.v3 import address_pb2 as core_address_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from envoy.extensions.matching.input_matchers.ip.v3 import ip_pb2
from envoy.type.matcher.v3 import address_pb2, filter_state_pb2, path_pb2, regex_pb2, string_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message
from xds.core.v3 import cidr_pb2, extension_pb2
from xds.type.matcher.v3 import matcher_pb2
from xds.type.matcher.v3 import regex_pb2 as xds_regex_pb2
from xds.type.matcher.v3 import string_pb2 as xds_string_pb2

from meshd.compile.envoy import asking, tokens
from meshd.compile.envoy.wellknown import (
    PEER_STATE,
    REMOTE_ADDRESS_STATE,
    SERVER_NAME_STATE,
    packed,
)
from meshd.compile.plan.authorization import (
    Address,
    Authorization,
    Claim,
    Field,
    Header,
    Path,
    Peer,
    Port,
    RequestPrincipal,
    Rule,
    ServerName,
    Test,
    Text,
    Tried,
)
from meshd.model.extension_provider import AuthorizationProvider

_Rbac = http_rbac_pb2.RBAC
_Filter = http_connection_manager_pb2.HttpFilter
_Policy = rbac_pb2.Policy
_Permission = rbac_pb2.Permission
_Principal = rbac_pb2.Principal
Predicate = matcher_pb2.Matcher.MatcherList.Predicate
NOTE: Final = "meshd.authorization.note"
DENY: Final = "meshd.authorization.deny"
ALLOW: Final = "meshd.authorization.allow"
"""The filters' names, under which routes say what they judge by."""
_PREFIXES: Final = {
    DENY: "istio_dry_run_deny_",
    ALLOW: "istio_dry_run_allow_",
}
"""What Istio puts before names of metadata and statistics about rules on trial."""
_AUDIT: Final = "audit_"
METADATA: Final = "envoy.filters.http.rbac"
"""Under this name the filters note what they have decided, whatever they are called."""
AUDITED_BY: Final = f"{_AUDIT}enforced_effective_policy_id"
TRIED_DENY: Final = f"{_PREFIXES[DENY]}shadow_effective_policy_id"
TRIED_ALLOW: Final = f"{_PREFIXES[ALLOW]}shadow_engine_result"
TRIED_RESULTS: Final = (f"{_PREFIXES[DENY]}shadow_engine_result", TRIED_ALLOW)


# ---- requests


def filters(asks: Sequence[AuthorizationProvider] = ()) -> list[_Filter]:
    """Return the filters, which let all requests pass of which routes say nothing. The one that
    notes is off unless they say something, and so are those that ask; ``asks``: whom."""
    found = [
        tokens.token_filter(),
        _Filter(name=NOTE, typed_config=packed(_Rbac()), disabled=True),
        *asking.filters(asks),
    ]
    for name, prefix in _PREFIXES.items():
        config = packed(_Rbac(shadow_rules_stat_prefix=prefix))
        found.append(_Filter(name=name, typed_config=config))
    return found


@functools.lru_cache(maxsize=64)
def per_route(
    rules: Authorization, *, inside: bool, reroutes: bool = False
) -> Mapping[str, any_pb2.Any]:
    """Return what routes say to the filters; ``inside``: see ``_by_filter``. The messages are
    shared: copy, never change."""
    found: dict[str, http_rbac_pb2.RBAC] = {}
    for name, given in _by_filter(rules, inside=inside).items():
        found[name] = _Rbac(rules=given)
    for name, given in _by_filter(rules.tried, inside=inside).items():
        found.setdefault(name, _Rbac()).shadow_rules.CopyFrom(given)
        found[name].shadow_rules_stat_prefix = _PREFIXES[name]
    if rules.audit:
        noted = rbac_pb2.RBAC(action=rbac_pb2.RBAC.LOG, policies=_policies(rules.audit, inside))
        found[NOTE] = _Rbac(rules=noted, rules_stat_prefix=_AUDIT)
    if rules.asking:
        asked = found.setdefault(NOTE, _Rbac())
        asked.shadow_rules.action = rbac_pb2.RBAC.DENY
        asked.shadow_rules_stat_prefix = asking.FIRST
        for rule in rules.asking.rules:
            name = rules.asking.name_of(rule)
            asked.shadow_rules.policies[name].CopyFrom(_policy(rule, inside))
    for one in found.values():
        one.track_per_rule_stats = True
    made = {name: packed(http_rbac_pb2.RBACPerRoute(rbac=one)) for name, one in found.items()}
    if rules.asking:
        made |= asking.per_route(rules.asking)
    if rules.tokens:
        made[tokens.TOKENS] = tokens.per_route(rules.tokens, reroutes=reroutes)
    return made


def _by_filter(rules: Authorization | Tried, *, inside: bool = False) -> dict[str, rbac_pb2.RBAC]:
    """Return what each filter judges by. ``inside``: they are behind a listener that has handed the
    connection over, so that its own other end is no client."""
    found: dict[str, rbac_pb2.RBAC] = {}
    if rules.deny:
        denied = _policies(rules.deny, inside)
        found[DENY] = rbac_pb2.RBAC(action=rbac_pb2.RBAC.DENY, policies=denied)
    if rules.allow is not None:
        allowed = _policies(rules.allow, inside)
        found[ALLOW] = rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW, policies=allowed)
    return found


def _policies(rules: Sequence[Rule], inside: bool) -> dict[str, _Policy]:
    return {rule.name: _policy(rule, inside) for rule in rules}


def _policy(rule: Rule, inside: bool) -> _Policy:
    permissions: list[_Permission] = []
    principals: list[_Principal] = []
    for clause in rule.clauses:
        # All tests of a clause are about the one or the other.
        if any(_is_of_operation(field) for group in clause for field in group):
            permissions.append(_permission(clause))
        else:
            principals.append(_principal(clause, inside))
    return _Policy(
        permissions=[_all_permissions(permissions)], principals=[_all_principals(principals)]
    )


def _is_of_operation(field: Field) -> bool:
    return any(
        test.of == "server" if isinstance(test, Address) else isinstance(test, Header | Path | Port)
        for test in field.tests
    )


def _permission(clause: Sequence[Sequence[Field]]) -> _Permission:
    groups = [_all_permissions([_field_permission(one) for one in group]) for group in clause]
    if len(groups) == 1:
        return groups[0]
    return _Permission(or_rules=_Permission.Set(rules=groups))


def _field_permission(field: Field) -> _Permission:
    found = [one for test in field.tests for one in _test_permissions(test)]
    made = found[0] if len(found) == 1 else _Permission(or_rules=_Permission.Set(rules=found))
    return _Permission(not_rule=made) if field.negated else made


def _test_permissions(test: Test) -> Iterator[_Permission]:
    match test:
        case Header(name, text):
            yield _Permission(header=_header(name, text))
        case Path(text):
            if text.form == "present":
                yield _Permission(any=True)
            else:
                yield _Permission(url_path=path_pb2.PathMatcher(path=_string(text)))
        case Port(number):
            yield _Permission(destination_port=number)
        case Address(_, networks):
            for network in networks:
                yield _Permission(destination_ip=_range(network))
        case _:
            raise TypeError(f"{test} is about the source")


def _all_permissions(found: list[_Permission]) -> _Permission:
    if not found:
        return _Permission(any=True)
    return found[0] if len(found) == 1 else _Permission(and_rules=_Permission.Set(rules=found))


def _principal(clause: Sequence[Sequence[Field]], inside: bool) -> _Principal:
    groups = [_all_principals([_field_principal(one, inside) for one in group]) for group in clause]
    return groups[0] if len(groups) == 1 else _Principal(or_ids=_Principal.Set(ids=groups))


def _field_principal(field: Field, inside: bool) -> _Principal:
    found = [one for test in field.tests for one in _test_principals(test, inside)]
    made = found[0] if len(found) == 1 else _Principal(or_ids=_Principal.Set(ids=found))
    return _Principal(not_id=made) if field.negated else made


def _test_principals(test: Test, inside: bool) -> Iterator[_Principal]:
    match test:
        case Peer(text):
            yield _Principal(filter_state=_state(PEER_STATE, text))
        case ServerName(text):
            yield _Principal(filter_state=_state(SERVER_NAME_STATE, text))
        case Claim() | RequestPrincipal():
            yield tokens.claims(test)
        case Address("client", networks) if inside:
            ranges = address_pb2.AddressMatcher(ranges=map(_xds_range, networks))
            state = filter_state_pb2.FilterStateMatcher(
                key=REMOTE_ADDRESS_STATE, address_match=ranges
            )
            yield _Principal(filter_state=state)
        case Address("client", networks):
            for network in networks:
                yield _Principal(direct_remote_ip=_range(network))
        case Address(_, networks):
            for network in networks:
                yield _Principal(remote_ip=_range(network))
        case _:
            raise TypeError(f"{test} is about the operation")


def _all_principals(found: list[_Principal]) -> _Principal:
    if not found:
        return _Principal(any=True)
    return found[0] if len(found) == 1 else _Principal(and_ids=_Principal.Set(ids=found))


def _header(name: str, text: Text) -> route_components_pb2.HeaderMatcher:
    if text.form == "present":
        return route_components_pb2.HeaderMatcher(name=name, present_match=True)
    return route_components_pb2.HeaderMatcher(name=name, string_match=_string(text))


def _state(key: str, text: Text) -> filter_state_pb2.FilterStateMatcher:
    return filter_state_pb2.FilterStateMatcher(key=key, string_match=_string(text))


def _string(text: Text) -> string_pb2.StringMatcher:
    match text.form:
        case "exact":
            return string_pb2.StringMatcher(exact=text.value, ignore_case=text.ignore_case)
        case "prefix":
            return string_pb2.StringMatcher(prefix=text.value, ignore_case=text.ignore_case)
        case "suffix":
            return string_pb2.StringMatcher(suffix=text.value, ignore_case=text.ignore_case)
        case _:
            return string_pb2.StringMatcher(
                safe_regex=regex_pb2.RegexMatcher(regex=text.value or ".+")
            )


def _range(network: str) -> core_address_pb2.CidrRange:
    address, length = _split(network)
    return core_address_pb2.CidrRange(address_prefix=address, prefix_len={"value": length})


def _xds_range(network: str) -> cidr_pb2.CidrRange:
    address, length = _split(network)
    return cidr_pb2.CidrRange(address_prefix=address, prefix_len={"value": length})


def _split(network: str) -> tuple[str, int]:
    found = ipaddress.ip_network(network, strict=False)
    return str(found.network_address), found.prefixlen


# ---- connections


def connection_filters(rules: Authorization | None) -> Iterator[listener_components_pb2.Filter]:
    """Yield the filters of a chain that judge once the client has sent something: where TLS ends in
    the chain, nobody knows who it is before."""
    for name, given in _by_filter(rules).items() if rules else ():
        config = network_rbac_pb2.RBAC(rules=given, stat_prefix=f"{name}.")
        yield listener_components_pb2.Filter(name=name, typed_config=packed(config))


def judges(found: listener_components_pb2.Filter) -> bool:
    """Return whether a filter of a chain is one of these."""
    return found.name in {DENY, ALLOW}


def _input(name: str, message: Message) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(message))


_PEER: Final = _input("peer", network_inputs_pb2.FilterStateInput(key=PEER_STATE))
_NAME: Final = _input("name", network_inputs_pb2.FilterStateInput(key=SERVER_NAME_STATE))
_PORT: Final = _input("port", network_inputs_pb2.DestinationPortInput())
_SERVER: Final = _input("address", network_inputs_pb2.DestinationIPInput())
_CLIENT: Final = _input("client", network_inputs_pb2.SourceIPInput())


def fits(rule: Rule) -> Predicate | None:
    """Return whether a rule for connections fits, as a question of a tree; None: it always does."""
    return _all(_any(_all(map(_asked, group)) for group in clause) for clause in rule.clauses)


def _asked(field: Field) -> Predicate:
    found = _any(map(_question, field.tests))
    assert found is not None  # noqa: S101  (a test is a question)
    return Predicate(not_matcher=found) if field.negated else found


def _all(parts: Iterable[Predicate | None]) -> Predicate | None:
    found = [one for one in parts if one is not None]
    if len(found) > 1:
        return Predicate(and_matcher=Predicate.PredicateList(predicate=found))
    return found[0] if found else None


def _any(parts: Iterable[Predicate | None]) -> Predicate | None:
    found: list[Predicate] = []
    for one in parts:
        if one is None:
            return None
        found.append(one)
    if len(found) == 1:
        return found[0]
    return Predicate(or_matcher=Predicate.PredicateList(predicate=found))


def _question(test: Test) -> Predicate:
    made = Predicate()
    single = made.single_predicate
    match test:
        case Peer(text):
            single.input.CopyFrom(_PEER)
            single.value_match.CopyFrom(_value(text))
        case ServerName(text):
            single.input.CopyFrom(_NAME)
            single.value_match.CopyFrom(_value(text))
        case Port(number):
            single.input.CopyFrom(_PORT)
            single.value_match.exact = str(number)
        case Address(of, networks):
            single.input.CopyFrom(_SERVER if of == "server" else _CLIENT)
            config = ip_pb2.Ip(cidr_ranges=map(_range, networks), stat_prefix="authorization")
            single.custom_match.CopyFrom(_input("networks", config))
        case _:
            raise TypeError(f"no connection knows {test}")
    return made


def _value(text: Text) -> xds_string_pb2.StringMatcher:
    match text.form:
        case "exact":
            return xds_string_pb2.StringMatcher(exact=text.value)
        case "prefix":
            return xds_string_pb2.StringMatcher(prefix=text.value)
        case "suffix":
            return xds_string_pb2.StringMatcher(suffix=text.value)
        case _:
            regex = xds_regex_pb2.RegexMatcher(
                regex=text.value or ".+", google_re2=xds_regex_pb2.RegexMatcher.GoogleRE2()
            )
            return xds_string_pb2.StringMatcher(safe_regex=regex)
