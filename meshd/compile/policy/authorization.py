"""Decides what a workload takes: AuthorizationPolicies and RequestAuthentications, as rules of the
plan.

Those of the root namespace and of the workload's own count, all together: what one denies is
denied, whatever others allow. https://istio.io/latest/docs/concepts/security/#authorization
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from meshd.api.authorization_policy.conditions import PRINCIPAL, claim_of, header_of
from meshd.api.authorization_policy.dry_run import is_dry_run
from meshd.api.authorization_policy.templates import template_regex
from meshd.api.authorization_policy.types import (
    Action,
    AuthorizationPolicy,
    Condition,
    Operation,
    Rule,
    Source,
    Texts,
)
from meshd.api.authorization_policy.unsupported import unsupported
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.compile.plan import authorization as plan
from meshd.compile.plan.authorization import Authorization, Field, Test, Text
from meshd.compile.plan.origin import Origin
from meshd.compile.policy.tokens import Keys, closed_rules, request_principal, token_rules
from meshd.model.service import Endpoint
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload

_UNKNOWN: Final = "a part of it is not carried out, so everything is denied"
_SPIFFE: Final = "spiffe://"
_OWN_DOMAIN: Final = "cluster.local/"
"""How policies may call the mesh's own trust domain, whatever its name."""
_HOST: Final = r"(?:[\w-]+(?:\.[\w-]+)*|\[[\w:.%-]+\])?(?::[0-9]*)?"
"""A host as clients write it, with its port: RFC 9110, section 7.2."""
_HOSTS: Final = frozenset({":authority", "host"})
_NO_HOST: Final = "names hosts, and what the request names is none"


_Policy = TypeVar("_Policy", AuthorizationPolicy, RequestAuthentication)


@dataclasses.dataclass(frozen=True, slots=True)
class Policies:
    """What requests and connections are judged by, by namespace."""

    judging: Mapping[str, Sequence[AuthorizationPolicy]]
    reading: Mapping[str, Sequence[RequestAuthentication]]
    """Which tokens are believed."""
    keys: Keys


_NO_KEYS: Final[Keys] = {}
JUDGED_BY: Final = ("authorization_policies", "request_authentications", "token_keys")
"""The fields of a snapshot with which ``policies_of`` may change."""


def by_namespace(
    policies: Iterable[AuthorizationPolicy],
    authentications: Iterable[RequestAuthentication] = (),
    keys: Keys = _NO_KEYS,
) -> Policies:
    """Return the policies of each namespace, in the order in which they are given."""
    return Policies(_listed(policies), _listed(authentications), keys)


def policies_of(snapshot: Snapshot) -> Policies:
    """Return the policies of a snapshot."""
    return by_namespace(
        snapshot.authorization_policies, snapshot.request_authentications, snapshot.token_keys
    )


def _listed(policies: Iterable[_Policy]) -> dict[str, list[_Policy]]:
    found: dict[str, list[_Policy]] = {}
    for policy in policies:
        found.setdefault(policy.metadata.namespace, []).append(policy)
    return found


def selecting(
    policies: Policies, workload: Workload | Endpoint, root_namespace: str
) -> tuple[AuthorizationPolicy, ...]:
    """Return the AuthorizationPolicies that are about a workload, those for the whole mesh
    first."""
    return tuple(_selecting(policies.judging, workload, root_namespace))


def reading(
    policies: Policies, workload: Workload | Endpoint, root_namespace: str
) -> tuple[RequestAuthentication, ...]:
    """Return the RequestAuthentications that are about a workload, those for the whole mesh
    first."""
    return tuple(_selecting(policies.reading, workload, root_namespace))


def _selecting(
    policies: Mapping[str, Sequence[_Policy]], workload: Workload | Endpoint, root_namespace: str
) -> Iterator[_Policy]:
    for namespace in dict.fromkeys((root_namespace, workload.namespace)):
        for policy in policies.get(namespace, ()):
            labels = policy.spec.selector.match_labels if policy.spec.selector else {}
            if labels.items() <= workload.labels.items():
                yield policy


def is_guarded(policies: Policies, workload: Workload | Endpoint, root_namespace: str) -> bool:
    """Return whether policies are about a workload: all that comes to it has to pass its own
    listeners, which know them."""
    return bool(
        selecting(policies, workload, root_namespace) or reading(policies, workload, root_namespace)
    )


def authorization(
    policies: Policies, workload: Workload | Endpoint, options: MeshOptions
) -> Authorization | None:
    """Return what a workload takes; None: no policy is about it."""
    root = options.root_namespace
    authentications = reading(policies, workload, root)
    found = _judging(selecting(policies, workload, root), options)
    if not authentications:
        return found
    rules = found or Authorization()
    return msgspec.structs.replace(
        rules,
        deny=(*closed_rules(authentications), *rules.deny),
        tokens=token_rules(authentications, policies.keys),
    )


def _judging(selected: Sequence[AuthorizationPolicy], options: MeshOptions) -> Authorization | None:
    """Return what policies about a workload let it take; None: there are none."""
    if not selected:
        return None
    unknown = [one for one in selected if is_enforced(one) and any(unsupported(one))]
    if unknown:
        # Who knows what it denies: nothing is taken.
        return Authorization(
            deny=tuple(plan.Rule(origin=Origin(policy.key, _UNKNOWN)) for policy in unknown)
        )
    enforced = [one for one in selected if is_enforced(one)]
    deny, allow = _deny_and_allow(enforced, options)
    known = [one for one in selected if not is_enforced(one) and not any(unsupported(one))]
    tried = _deny_and_allow([one for one in known if is_dry_run(one)], options)
    return Authorization(
        deny=deny,
        allow=allow,
        tried=plan.Tried(deny=tried[0], allow=tried[1]),
        audit=tuple(_of_action("AUDIT", known, options)),
    )


def is_enforced(policy: AuthorizationPolicy) -> bool:
    """Return whether a policy decides; of others it is noted what they fit."""
    return policy.spec.action != "AUDIT" and not is_dry_run(policy)


def _deny_and_allow(
    policies: Sequence[AuthorizationPolicy], options: MeshOptions
) -> tuple[tuple[plan.Rule, ...], tuple[plan.Rule, ...] | None]:
    deny = tuple(_of_action("DENY", policies, options))
    allow = tuple(_of_action("ALLOW", policies, options))
    allows = any(one.spec.action == "ALLOW" for one in policies)
    return (*deny, *_no_hosts((*deny, *allow))), allow if allows else None


def _of_action(
    action: Action, policies: Iterable[AuthorizationPolicy], options: MeshOptions
) -> Iterator[plan.Rule]:
    for policy in policies:
        if policy.spec.action == action:
            yield from _rules(policy, options)


def _no_hosts(rules: Iterable[plan.Rule]) -> Iterator[plan.Rule]:
    """Yield what denies requests to something that is no host, if a rule is about hosts.

    The proxy takes ``a.test,b.test``, ``me@a.test`` and ``a.test..`` as they are, and joins the
    lines of several hosts; applications may find one host in them, and rules do not.
    """
    for rule in rules:
        if any(isinstance(test, plan.Header) and test.name in _HOSTS for test in rule.tests):
            none = Field((plan.Header(":authority", Text("regex", _HOST)),), negated=True)
            origin = Origin(rule.origin.key, _NO_HOST)
            yield plan.Rule(origin=origin, clauses=(((none,),),), only_requests=True)
            return


def of_connections(found: Authorization) -> Authorization:
    """Return the rules for connections that are not HTTP.

    What only a request has, no connection has: a rule that allows by it allows no connection, and
    a rule that denies by it denies whatever the rest of it fits.
    """
    return Authorization(
        deny=tuple(_without_requests(rule) for rule in found.deny if not rule.only_requests),
        allow=None
        if found.allow is None
        else tuple(rule for rule in found.allow if not any(map(_is_of_requests, rule.fields))),
    )


def of_whatever(found: Authorization) -> Authorization:
    """Return rules that deny only what is denied whatever is requested, if it is HTTP at all."""
    return Authorization(
        deny=tuple(rule for rule in found.deny if not any(map(_is_of_requests, rule.fields))),
        allow=None if found.allow is None else tuple(map(_without_requests, found.allow)),
    )


def asks_server_name(found: Authorization | None) -> bool:
    """Return whether a rule asks for the name in a client's TLS hello."""
    if found is None:
        return False
    return any(
        isinstance(test, plan.ServerName)
        for rule in (*found.deny, *(found.allow or ()))
        for test in rule.tests
    )


def _without_requests(rule: plan.Rule) -> plan.Rule:
    clauses = tuple(
        tuple(tuple(field for field in group if not _is_of_requests(field)) for group in clause)
        for clause in rule.clauses
    )
    return plan.Rule(origin=rule.origin, clauses=clauses)


def _is_of_requests(field: Field) -> bool:
    return any(isinstance(test, plan.OF_REQUESTS) for test in field.tests)


def _rules(policy: AuthorizationPolicy, options: MeshOptions) -> Iterator[plan.Rule]:
    for index, rule in enumerate(policy.spec.rules or ()):
        yield plan.Rule(
            origin=Origin(policy.key, f"spec.rules[{index}]"),
            clauses=tuple(_clauses(rule, policy.metadata.namespace, options.trust_domain)),
        )


def _clauses(
    rule: Rule, namespace: str, trust_domain: str
) -> Iterator[tuple[plan.Alternative, ...]]:
    if rule.from_:
        sources = (one.source or Source() for one in rule.from_)
        yield tuple(tuple(_of_source(one, namespace, trust_domain)) for one in sources)
    if rule.to:
        operations = (one.operation or Operation() for one in rule.to)
        yield tuple(tuple(_of_operation(one)) for one in operations)
    for condition in rule.when or ():
        yield (tuple(_of_condition(condition, trust_domain)),)


def _of_source(found: Source, namespace: str, trust_domain: str) -> Iterator[Field]:
    def principal(value: str) -> Test:
        return _principal(value, trust_domain)

    def account(value: str) -> Test:
        return _account(value, namespace)

    yield from _fields(found.principals, found.not_principals, principal)
    yield from _fields(found.request_principals, found.not_request_principals, request_principal)
    yield from _fields(found.namespaces, found.not_namespaces, _namespace)
    yield from _fields(found.service_accounts, found.not_service_accounts, account)
    yield from _addresses("client", found.ip_blocks, found.not_ip_blocks)
    yield from _addresses("forwarded", found.remote_ip_blocks, found.not_remote_ip_blocks)


def _of_operation(found: Operation) -> Iterator[Field]:
    yield from _fields(found.hosts, found.not_hosts, _host)
    yield from _fields(found.ports, found.not_ports, _port)
    yield from _fields(found.methods, found.not_methods, _method)
    yield from _fields(found.paths, found.not_paths, _path)


def _of_condition(found: Condition, trust_domain: str) -> Iterator[Field]:
    values, others = found.values, found.not_values
    match found.key:
        case "source.ip":
            yield from _addresses("client", values, others)
        case "remote.ip":
            yield from _addresses("forwarded", values, others)
        case "destination.ip":
            yield from _addresses("server", values, others)
        case "source.namespace":
            yield from _fields(values, others, _namespace)
        case "source.principal":
            yield from _fields(values, others, lambda value: _principal(value, trust_domain))
        case "destination.port":
            yield from _fields(values, others, _port)
        case "connection.sni":
            yield from _fields(values, others, lambda value: plan.ServerName(text(value)))
        case key if key == PRINCIPAL:
            yield from _fields(values, others, request_principal)
        case key if names := claim_of(key):
            yield from _fields(values, others, lambda value: plan.Claim(names, text(value)))
        case key:
            name = header_of(key)
            yield from _fields(values, others, lambda value: plan.Header(name, text(value)))


def _fields(given: Texts, others: Texts, made: Callable[[str], Test]) -> Iterator[Field]:
    if given:
        yield Field(tuple(map(made, given)))
    if others:
        yield Field(tuple(map(made, others)), negated=True)


def _addresses(of: plan.Side, given: Texts, others: Texts) -> Iterator[Field]:
    for networks, negated in ((given, False), (others, True)):
        if networks:
            yield Field((plan.Address(of, networks),), negated)


def text(value: str, *, ignore_case: bool = False) -> Text:
    """Return what a value of a policy stands for: a ``*`` is a wildcard at its beginning or end."""
    if value == "*":
        return Text("present")
    if value.startswith("*"):
        return Text("suffix", value[1:], ignore_case)
    if value.endswith("*"):
        return Text("prefix", value[:-1], ignore_case)
    return Text("exact", value, ignore_case)


def _principal(value: str, trust_domain: str) -> Test:
    if value.startswith(_OWN_DOMAIN):
        value = f"{trust_domain}/{value.removeprefix(_OWN_DOMAIN)}"
    wanted = text(value)
    if wanted.form in {"exact", "prefix"}:
        wanted = Text(wanted.form, _SPIFFE + wanted.value)
    return plan.Peer(wanted)


def _namespace(value: str) -> Test:
    wanted = text(value)
    any_, literal = "[^/]*", re.escape(wanted.value)
    part = {
        "present": "[^/]+",
        "suffix": any_ + literal,
        "prefix": literal + any_,
    }.get(wanted.form, literal)
    return plan.Peer(Text("regex", f"{_SPIFFE}[^/]+/ns/{part}/sa/[^/]+"))


def _account(value: str, namespace: str) -> Test:
    owner, slash, name = value.rpartition("/")
    whose = re.escape(owner if slash else namespace)
    return plan.Peer(Text("regex", f"{_SPIFFE}[^/]+/ns/{whose}/sa/{re.escape(name)}"))


def _host(value: str) -> Test:
    return plan.Header(":authority", text(value, ignore_case=True))


def _method(value: str) -> Test:
    return plan.Header(":method", text(value))


def _path(value: str) -> Test:
    regex = template_regex(value)
    return plan.Path(Text("regex", regex) if regex else text(value))


def _port(value: str) -> Test:
    return plan.Port(int(value))
