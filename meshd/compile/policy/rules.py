"""Says what the rules of an AuthorizationPolicy fit, as rules of the plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from meshd.api.authorization_policy.conditions import PRINCIPAL, claim_of, header_of
from meshd.api.authorization_policy.templates import template_regex
from meshd.api.authorization_policy.types import (
    AuthorizationPolicy,
    Condition,
    Operation,
    Rule,
    Source,
    Texts,
)
from meshd.compile.plan import authorization as plan
from meshd.compile.plan.authorization import Field, Test, Text
from meshd.compile.plan.origin import Origin
from meshd.compile.policy.tokens import request_principal
from meshd.model.snapshot import MeshOptions

_SPIFFE: Final = "spiffe://"
_OWN_DOMAIN: Final = "cluster.local/"
"""How policies may call the mesh's own trust domain, whatever its name."""


def rules_of(policy: AuthorizationPolicy, options: MeshOptions) -> Iterator[plan.Rule]:
    """Yield the rules of a policy, in order."""
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
