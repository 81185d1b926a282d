"""Decides what a workload takes: AuthorizationPolicies and RequestAuthentications, as rules of the
plan.

Those of the root namespace and of the workload's own count, all together: what one denies is
denied, whatever others allow. https://istio.io/latest/docs/concepts/security/#authorization
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from meshd.api.authorization_policy.dry_run import is_dry_run
from meshd.api.authorization_policy.types import (
    Action,
    AuthorizationPolicy,
)
from meshd.api.authorization_policy.unsupported import unsupported
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.compile.plan import authorization as plan
from meshd.compile.plan.authorization import Authorization, Field, Text
from meshd.compile.plan.origin import Origin
from meshd.compile.policy.rules import rules_of
from meshd.compile.policy.tokens import Keys, closed_rules, token_rules
from meshd.model.service import Endpoint
from meshd.model.short_way import own_address
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Identity, Workload

_UNKNOWN: Final = "a part of it is not carried out, so everything is denied"
_NO_PROVIDER: Final = "spec.provider is no extension provider, so everything is denied"
_SEVERAL: Final = (
    "spec.provider is not that of another policy about the workload, so everything is denied"
)
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
_SERVER_NAME: Final = "connection.sni"
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


def is_asked_for_server_names(
    policies: Policies, workload: Workload | Endpoint, root_namespace: str
) -> bool:
    """Return whether a policy about a workload asks for the name in a client's TLS hello."""
    return any(
        condition.key == _SERVER_NAME
        for policy in selecting(policies, workload, root_namespace)
        for rule in policy.spec.rules or ()
        for condition in rule.when or ()
    )


def authorization(
    policies: Policies, workload: Workload | Endpoint, options: MeshOptions
) -> Authorization | None:
    """Return what a workload takes; None: no policy is about it."""
    root = options.root_namespace
    authentications = reading(policies, workload, root)
    found = _judging(selecting(policies, workload, root), workload, options)
    if not authentications:
        return found
    rules = found or Authorization()
    return msgspec.structs.replace(
        rules,
        deny=(*closed_rules(authentications), *rules.deny),
        tokens=token_rules(authentications, policies.keys),
    )


def _judging(
    selected: Sequence[AuthorizationPolicy], workload: Workload | Endpoint, options: MeshOptions
) -> Authorization | None:
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
    custom = [one for one in enforced if one.spec.action == "CUSTOM"]
    asking = _asking(custom, workload, options)
    return Authorization(
        deny=(*_unasked(custom, options), *deny),
        allow=allow,
        asking=asking,
        tried=plan.Tried(deny=tried[0], allow=tried[1]),
        audit=tuple(_of_action("AUDIT", known, options)),
    )


def _asking(
    custom: Sequence[AuthorizationPolicy], workload: Workload | Endpoint, options: MeshOptions
) -> plan.Asking | None:
    """Return whom to ask, and about what; None: nobody, or nobody can be asked."""
    if not custom or any(True for _ in _unasked(custom, options)):
        return None
    (provider,) = (one for one in options.providers if one.name == _provider(custom[0]))
    return plan.Asking(
        provider=provider,
        rules=tuple(_of_action("CUSTOM", custom, options)),
        identity=Identity(options.trust_domain, workload.namespace, workload.service_account),
        address=own_address(workload) if isinstance(workload, Workload) else "",
    )


def _unasked(custom: Sequence[AuthorizationPolicy], options: MeshOptions) -> Iterator[plan.Rule]:
    """Yield what denies everything for policies whose provider cannot be asked."""
    known = {one.name for one in options.providers}
    several = len({_provider(one) for one in custom}) > 1
    for policy in custom:
        if several or _provider(policy) not in known:
            yield plan.Rule(origin=Origin(policy.key, _SEVERAL if several else _NO_PROVIDER))


def _provider(policy: AuthorizationPolicy) -> str:
    return policy.spec.provider.name if policy.spec.provider else ""


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
            yield from rules_of(policy, options)


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
    asked = found.asking.rules if found.asking else ()  # about requests only: nobody asks
    return Authorization(
        deny=tuple(
            _without_requests(rule) for rule in (*found.deny, *asked) if not rule.only_requests
        ),
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
    return any(isinstance(test, plan.ServerName) for rule in found.rules for test in rule.tests)


def _without_requests(rule: plan.Rule) -> plan.Rule:
    clauses = tuple(
        tuple(tuple(field for field in group if not _is_of_requests(field)) for group in clause)
        for clause in rule.clauses
    )
    return plan.Rule(origin=rule.origin, clauses=clauses)


def _is_of_requests(field: Field) -> bool:
    return any(isinstance(test, plan.OF_REQUESTS) for test in field.tests)
