"""Judges what a client sends by the AuthorizationPolicies about where it arrives. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from meshd import wire
from meshd.api.base import Key
from meshd.compile.explain.authorization import Facts, Verdict, judge, judge_request
from meshd.compile.explain.chain_choice import Connection
from meshd.compile.explain.rule_text import describe, describe_tokens
from meshd.compile.plan.authorization import Authorization, Rule
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.tls import TlsMode
from meshd.compile.policy.authorization import (
    authorization,
    is_enforced,
    of_connections,
    policies_of,
    selecting,
)
from meshd.matching.request import Request
from meshd.model.service import Endpoint
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload, shown

_COUNTED: Final[Mapping[wire.JudgingAction, str]] = {
    "audit": "allowed",
    "ask": "shadow_denied",
    "deny": "denied",
    "would deny": "shadow_denied",
    "allow": "allowed",
    "would allow": "shadow_allowed",
}


def judging(
    snapshot: Snapshot,
    workload: Workload,
    place_of: Callable[[Key, str], str],
    counts: Mapping[tuple[str, str], int] | None = None,
) -> wire.Judging:
    """Return the rules about a workload, in the order in which they count; then the policies that
    allow nothing, since they have none. ``counts``: how often each has fitted, by its name and what
    became of that; None: that is not known."""
    policies = policies_of(snapshot)
    options = snapshot.options
    rules = authorization(policies, workload, options) or Authorization()

    def row(action: wire.JudgingAction, origin: Origin, fitted: str) -> wire.JudgingRule:
        name = f"{origin.key.namespace}/{origin.key.name}"
        return wire.JudgingRule(
            action, name, origin.field, fitted, place_of(origin.key, origin.field)
        )

    without_rules = (
        policy.key
        for policy in selecting(policies, workload, options.root_namespace)
        if is_enforced(policy) and policy.spec.action == "ALLOW" and not policy.spec.rules
    )
    return wire.Judging(
        shown(workload.uid),
        (
            *(row("token", rule.origin, describe_tokens(rule)) for rule in rules.tokens),
            *(
                msgspec.structs.replace(
                    row(action, rule.origin, _fitted(rule, action, rules)),
                    count=None if counts is None else counts.get(_counted(rule, action, rules), 0),
                )
                for action, those in _by_action(rules)
                for rule in those
            ),
            *(row("allow", Origin(key, "spec.rules"), "nothing") for key in without_rules),
        ),
        "allow" if rules.allow is None else "deny",
    )


def _fitted(rule: Rule, action: wire.JudgingAction, rules: Authorization) -> str:
    """Return what a rule fits, and whom it has asked."""
    asked = f" (asks {rules.asking.provider.name})" if action == "ask" and rules.asking else ""
    return describe(rule) + asked


def _counted(rule: Rule, action: wire.JudgingAction, rules: Authorization) -> tuple[str, str]:
    """Return under which name, and as what, proxies count what a rule fits."""
    if action == "ask" and rules.asking:
        return rules.asking.name_of(rule), _COUNTED[action]
    return rule.name, _COUNTED[action]


def _by_action(rules: Authorization) -> Iterator[tuple[wire.JudgingAction, tuple[Rule, ...]]]:
    yield "audit", rules.audit
    yield "ask", rules.asking.rules if rules.asking else ()
    yield "deny", rules.deny
    yield "would deny", rules.tried.deny
    yield "allow", rules.allow or ()
    yield "would allow", rules.tried.allow or ()


def is_certified(tls: TlsMode, place: Endpoint) -> bool:
    """Return whether an endpoint is shown the client's certificate."""
    return tls is TlsMode.MESH or (tls is TlsMode.AUTO and place.mutual_tls)


def arriving(source: Workload, place: Endpoint, peer: str, connection: Connection) -> Facts:
    """Return what an endpoint knows of a connection; ``peer``: see ``Facts``."""
    return Facts(
        peer=peer,
        client=next(iter(source.addresses), ""),
        server=place.address,
        port=place.port,
        server_name=connection.server_name,
        now=connection.now,
    )


def entering(connection: Connection, client: str) -> Facts:
    """Return what a gateway knows of a connection from outside the mesh; ``client``: its address,
    or empty: one that no policy names."""
    return Facts(
        peer=connection.peer,
        client=client,
        server=connection.address,
        port=connection.port,
        server_name=connection.server_name,
        now=connection.now,
    )


def judged(
    snapshot: Snapshot,
    place: Workload | Endpoint,
    facts: Facts,
    request: Request | None,
) -> Verdict:
    """Return what becomes of a request at a workload; None: of a connection that is not HTTP."""
    policies = policies_of(snapshot)
    rules = authorization(policies, place, snapshot.options)
    if request is not None:
        return judge_request(rules, facts, request)
    return judge(rules and of_connections(rules), facts)
