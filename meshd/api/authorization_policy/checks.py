"""Validates AuthorizationPolicies.

https://istio.io/latest/docs/reference/config/security/authorization-policy/

A policy that is not understood whole is an error: a part of it that was left out could open
something. What meshd does not carry out yet is one, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from meshd.api.authorization_policy.conditions import (
    KNOWN,
    OF_NETWORKS,
    OF_PORTS,
    PRINCIPAL,
    claim_of,
    header_of,
)
from meshd.api.authorization_policy.dry_run import dry_run_problems
from meshd.api.authorization_policy.templates import template_problem, template_regex
from meshd.api.authorization_policy.types import (
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    Condition,
    Operation,
    Rule,
    Source,
    Texts,
)
from meshd.api.authorization_policy.unsupported import unsupported
from meshd.api.checks import Report, check_header_names, check_labels, is_network
from meshd.api.decode import Path
from meshd.api.patterns import check_regex
from meshd.api.read import label_problem, subdomain_problem

_LENGTH: Final = re.compile("[0-9]{0,3}")
"""Of a network, after the slash: no mask of addresses."""
_LONGEST_NAMESPACE: Final = 63
"""Of Kubernetes: longer names of namespaces fit nothing."""
MOST_RULES: Final = 1000
"""Of one policy: each costs every request a look."""
MOST_VALUES: Final = 10_000
"""Of one policy."""


def check_authorization_policy(report: Report, found: AuthorizationPolicy) -> None:
    spec = found.spec
    if spec.selector:
        check_labels(report, ("spec", "selector", "matchLabels"), spec.selector.match_labels)
    for path, why in (*unsupported(found), *dry_run_problems(found)):
        report.error(path, why)
    _check_action(report, spec)
    rules = spec.rules or ()
    if len(rules) > MOST_RULES or _size(rules) > MOST_VALUES:
        message = f"at most {MOST_RULES} rules with {MOST_VALUES} values; split the policy"
        report.error(("spec", "rules"), message)
        return
    for index, rule in enumerate(rules):
        _check_rule(report, ("spec", "rules", index), rule)


def _check_action(report: Report, spec: AuthorizationPolicySpec) -> None:
    if spec.provider is not None and spec.action != "CUSTOM":
        report.error(("spec", "provider"), "is for the action CUSTOM only")
    if spec.action == "CUSTOM" and not (spec.provider and spec.provider.name):
        message = "CUSTOM asks a provider; name one of mesh.extension_providers of meshd.yaml"
        report.error(("spec", "provider"), message)
    if not spec.rules and spec.action != "ALLOW":
        message = f"{spec.action} without rules is never met; write rules: [{{}}] for all requests"
        report.error(("spec", "rules"), message)


def _check_rule(report: Report, path: Path, rule: Rule) -> None:
    for name, given in (("from", rule.from_), ("to", rule.to), ("when", rule.when)):
        if given == ():
            report.error((*path, name), "is empty; leave it out, or say what it is to fit")
    for index, each in enumerate(rule.from_ or ()):
        _check_source(report, (*path, "from", index, "source"), each.source)
    for index, each in enumerate(rule.to or ()):
        _check_operation(report, (*path, "to", index, "operation"), each.operation)
    for index, condition in enumerate(rule.when or ()):
        _check_condition(report, (*path, "when", index), condition)


def _check_source(report: Report, path: Path, found: Source | None) -> None:
    if found is None or found == Source():
        report.error(path, "is empty; leave the rule's from out to fit all sources")
        return
    _check_accounts_alone(report, path, found)
    for name, values in (
        ("principals", found.principals),
        ("notPrincipals", found.not_principals),
    ):
        for at, value in _listed(report, (*path, name), values):
            _check_principal(report, at, value)
    for name, values in (
        ("requestPrincipals", found.request_principals),
        ("notRequestPrincipals", found.not_request_principals),
    ):
        for at, value in _listed(report, (*path, name), values):
            _check_request_principal(report, at, value)
    for name, values in (
        ("namespaces", found.namespaces),
        ("notNamespaces", found.not_namespaces),
    ):
        for at, value in _listed(report, (*path, name), values):
            _check_namespace(report, at, value)
    for name, values in (
        ("serviceAccounts", found.service_accounts),
        ("notServiceAccounts", found.not_service_accounts),
    ):
        for at, value in _listed(report, (*path, name), values):
            _check_account(report, at, value)
    for name, values in (
        ("ipBlocks", found.ip_blocks),
        ("notIpBlocks", found.not_ip_blocks),
        ("remoteIpBlocks", found.remote_ip_blocks),
        ("notRemoteIpBlocks", found.not_remote_ip_blocks),
    ):
        for at, value in _listed(report, (*path, name), values):
            _check_network(report, at, value)


def _check_accounts_alone(report: Report, path: Path, found: Source) -> None:
    if not any((found.principals, found.not_principals, found.namespaces, found.not_namespaces)):
        return
    for name, values in (
        ("serviceAccounts", found.service_accounts),
        ("notServiceAccounts", found.not_service_accounts),
    ):
        if values:
            message = "cannot stand beside principals and namespaces; write the account as one of"
            report.error((*path, name), f"{message} principals, or leave these out")


def _check_operation(report: Report, path: Path, found: Operation | None) -> None:
    if found is None or found == Operation():
        report.error(path, "is empty; leave the rule's to out to fit all operations")
        return
    for name, values in (("ports", found.ports), ("notPorts", found.not_ports)):
        for at, value in _listed(report, (*path, name), values):
            _check_port_text(report, at, value)
    for name, values in (("hosts", found.hosts), ("notHosts", found.not_hosts)):
        for at, value in _listed(report, (*path, name), values):
            _check_wildcard(report, at, value)
    for name, values in (("methods", found.methods), ("notMethods", found.not_methods)):
        for at, value in _listed(report, (*path, name), values):
            _check_wildcard(report, at, value)
            _check_method(report, at, value)
    for name, values in (("paths", found.paths), ("notPaths", found.not_paths)):
        for at, value in _listed(report, (*path, name), values):
            if "{*}" not in value and "{**}" not in value:
                _check_wildcard(report, at, value)
                _check_path(report, at, value)
            elif problem := template_problem(value):
                report.error(at, problem)
            else:
                check_regex(report, at, template_regex(value))


def _check_condition(report: Report, path: Path, found: Condition) -> None:
    key = found.key
    if not found.values and not found.not_values:
        report.error(path, "has neither values nor notValues")
    header = header_of(key)
    if header:
        check_header_names(report, (*path, "key"), [header])
    elif key not in KNOWN and not claim_of(key):
        return
    for name, values in (("values", found.values), ("notValues", found.not_values)):
        for at, value in _listed(report, (*path, name), values):
            if key in OF_NETWORKS:
                _check_network(report, at, value)
            elif key in OF_PORTS:
                _check_port_text(report, at, value)
            elif key == "source.principal":
                _check_principal(report, at, value)
            elif key == PRINCIPAL:
                _check_request_principal(report, at, value)
            elif key == "source.namespace":
                _check_namespace(report, at, value)
            else:
                _check_wildcard(report, at, value)


def _listed(report: Report, path: Path, values: Texts) -> Iterator[tuple[Path, str]]:
    """Yield the values of a list, each with its path, that are not empty."""
    if values == ():
        report.error(path, "is empty; leave it out, or say what it is to fit")
    for index, value in enumerate(values or ()):
        if value:
            yield (*path, index), value
        else:
            report.error((*path, index), "an empty text fits nothing")


def _check_wildcard(report: Report, path: Path, value: str) -> None:
    if "*" in value[1:-1] or (len(value) > 1 and value[0] == value[-1] == "*"):
        message = f'"{value}": a * is a wildcard only at the beginning or at the end, not at both'
        report.warning(path, f"{message}; any other is taken as it is")


def _check_principal(report: Report, path: Path, value: str) -> None:
    _check_wildcard(report, path, value)
    if value.startswith("spiffe://"):
        report.error(path, f'"{value}": leave out spiffe://, as in cluster.local/ns/NS/sa/NAME')


def _check_request_principal(report: Report, path: Path, value: str) -> None:
    _check_wildcard(report, path, value)
    if "/" not in value and "*" not in {value[0], value[-1]}:
        report.warning(path, f'"{value}" fits no request: it is not ISSUER/SUBJECT')


def _check_namespace(report: Report, path: Path, value: str) -> None:
    _check_wildcard(report, path, value)
    if len(value.removeprefix("*").removesuffix("*")) > _LONGEST_NAMESPACE:
        report.error(path, f"no namespace has a name of more than {_LONGEST_NAMESPACE} characters")


def _check_account(report: Report, path: Path, value: str) -> None:
    namespace, slash, name = value.rpartition("/")
    problem = (slash and label_problem(namespace)) or subdomain_problem(name)
    if problem:
        report.error(path, f'"{value}" is not NAME or NAMESPACE/NAME: {problem}')


def _check_network(report: Report, path: Path, value: str) -> None:
    if not is_network(value) or not _LENGTH.fullmatch(value.partition("/")[2]) or "%" in value:
        report.error(path, f'"{value}" is not an address or a network such as 10.0.0.0/8')


def _check_port_text(report: Report, path: Path, value: str) -> None:
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and 1 <= int(value) <= 65535):
        report.error(path, f'"{value}" is not a port; ports are 1 to 65535')


def _check_method(report: Report, path: Path, value: str) -> None:
    if value != value.upper():
        message = f'"{value}": methods are compared with case; did you mean {value.upper()}?'
        report.warning(path, message)


def _check_path(report: Report, path: Path, value: str) -> None:
    if not value.startswith(("/", "*")):
        report.warning(path, f'"{value}" fits no request: paths begin with /')
    elif "?" in value or "#" in value:
        report.warning(path, f'"{value}": paths are compared without what follows a ? or #')


def _size(rules: tuple[Rule, ...]) -> int:
    """Return the number of values in rules."""
    lists: list[Texts] = []
    for rule in rules:
        for each in rule.from_ or ():
            if each.source:
                lists += (getattr(each.source, name) for name in each.source.__struct_fields__)
        for each in rule.to or ():
            if each.operation:
                one = each.operation
                lists += (getattr(one, name) for name in one.__struct_fields__)
        for condition in rule.when or ():
            lists += (condition.values, condition.not_values)
    return sum(len(values or ()) for values in lists)
