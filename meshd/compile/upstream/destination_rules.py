"""Finds the DestinationRules that hold for a service and a client, and merges them.

As Istio looks them up: first in the client's namespace, then in the service's, then in the root
namespace; within one, rules for the exact host before those for a wildcard, and rules that select
the client's workload before those for all:
https://istio.io/latest/docs/ops/best-practices/traffic-management/#cross-namespace-configuration
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from meshd.api.base import Key, exported, exported_to_all
from meshd.api.hosts import covers, resolve
from meshd.api.locality import NETWORK
from meshd.api.networking import DestinationRule, DestinationRuleSpec, Subset, TrafficPolicy
from meshd.compile.hosts import specificity
from meshd.compile.names import HIDDEN
from meshd.compile.plan.origin import Origin
from meshd.compile.upstream.counted import is_counted
from meshd.compile.upstream.nearness import Client, compared_labels, has_preferences, may_prefer
from meshd.compile.upstream.rule_credentials import credential_names, without_credentials
from meshd.compile.visibility.scope import Scope
from meshd.model.bounded import BoundedRule
from meshd.model.closed_rule import ClosedRule
from meshd.model.service import Preference, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot

AT_GATEWAY = "~gateway"
"""Ends the variant of what is different for gateways."""
NO_RULE = "-"
"""Variant of clients that see no rule, where the service's own namespace sees one."""


class RuleSet(msgspec.Struct, frozen=True, dict=True):
    """The rules that hold for one service as some clients see it, merged."""

    variant: str = ""
    spec: DestinationRuleSpec | None = None
    namespace: str = ""
    """Of the client, where the rules name Secrets that it reads: they are there."""
    client: Client | None = None
    """Who asks; None: it does not matter who."""
    sticky: bool = False
    """The service's own wish, where no rule says how to balance."""
    at_gateway: bool = False
    """Clients are a gateway's. It has not been asked for an address of the service's, so it chooses
    an endpoint; and that its client speaks HTTP/2 says nothing about who serves an undeclared
    port."""

    origins: tuple[tuple[str, Origin], ...] = ()
    """The fields that declare subsets, by name; of several with one name, the first counts."""
    policy_origin: Origin | None = None
    """The field that sets the traffic policy outside of subsets."""

    @property
    def keys(self) -> frozenset[Key]:
        """Return the objects that say anything of the clusters."""
        named = {origin.key for _, origin in self.origins}
        return frozenset(named | ({self.policy_origin.key} if self.policy_origin else set()))

    def subset(self, name: str) -> Subset | None:
        return self._subsets.get(name)

    def origin_of(self, subset: str) -> Origin | None:
        """Return the field that declares a subset."""
        return next((origin for name, origin in self.origins if name == subset), None)

    @functools.cached_property
    def _subsets(self) -> dict[str, Subset]:
        """Return subsets by name; of several with one name, the first."""
        return {subset.name: subset for subset in reversed(self.subsets)}

    @property
    def subsets(self) -> tuple[Subset, ...]:
        return self.spec.subsets if self.spec else ()

    @property
    def is_closed(self) -> bool:
        """Return whether the clients reach nothing of the service: it has no clusters for them."""
        return self.variant == HIDDEN

    @property
    def policy(self) -> TrafficPolicy | None:
        return self.spec.traffic_policy if self.spec else None


NO_RULES: Final = RuleSet()
_STICKY: Final = RuleSet(sticky=True)


@dataclasses.dataclass(frozen=True, slots=True)
class RuleTable:
    """The rules of one namespace, by full host name."""

    exact: dict[str, tuple[DestinationRule, ...]]
    wildcards: tuple[tuple[str, tuple[DestinationRule, ...]], ...]
    """Most specific first."""

    def candidates(self, host: str) -> Iterable[tuple[DestinationRule, ...]]:
        if host in self.exact:
            yield self.exact[host]
        for pattern, rules in self.wildcards:
            if covers(pattern, host):
                yield rules


@dataclasses.dataclass(frozen=True, slots=True)
class RuleIndex:
    """All rules of a mesh, ready to be looked up."""

    options: MeshOptions
    tables: dict[str, RuleTable]

    @classmethod
    def of(cls, snapshot: Snapshot) -> RuleIndex:
        found: dict[str, dict[str, list[DestinationRule]]] = defaultdict(lambda: defaultdict(list))
        for rule in snapshot.destination_rules:
            namespace = rule.metadata.namespace
            host = resolve(rule.spec.host, namespace, snapshot.options.domain, snapshot.services)
            found[namespace][host].append(rule)
        return cls(
            snapshot.options,
            {namespace: _table(by_host) for namespace, by_host in found.items()},
        )

    def rules(self, service: ServiceRecord, scope: Scope, *, at_gateway: bool = False) -> RuleSet:
        """Return the rules for a service and clients of this scope, or gateways there."""
        if service.closed:
            return RuleSet(HIDDEN)
        if not self.tables and service.prefers is Preference.ANY:
            return _STICKY if service.sticky else NO_RULES
        found = self._find(service, scope)
        if any(isinstance(rule, ClosedRule) for rule in found):
            return RuleSet(HIDDEN)
        spec = merge(found)
        shared = self._find(service, Scope(service.namespace))
        same = [rule.key for rule in found] == [rule.key for rule in shared]
        client, which = self._client(spec, service, scope)
        variant = ("" if same else _variant(found)) + which
        if is_counted(spec) and scope.counted_as != service.namespace:
            variant += f"+{scope.counted_as}"
        owner = ""
        if spec and any(True for _ in credential_names(spec)):
            if at_gateway or spec.workload_selector:
                owner = scope.namespace
                variant += f"%{owner}"
            else:
                spec = without_credentials(spec)
        return RuleSet(
            variant,
            spec,
            owner,
            client,
            service.sticky,
            origins=tuple(_origins(found)),
            policy_origin=_policy_origin(found),
        )

    def are_the_same_for_all(self, service: ServiceRecord) -> bool:
        """Return whether the same rules hold for a service for all clients: True only if that is
        certain without looking at the clients."""
        if service.closed:
            return True
        if service.prefers is not Preference.ANY:
            return False
        return all(
            namespace == service.namespace and all(map(is_for_all, rules))
            for namespace, table in self.tables.items()
            for rules in table.candidates(service.host)
        )

    def closing_rule(self, service: ServiceRecord, scope: Scope) -> ClosedRule | None:
        """Return the rule that closes a service to clients of this scope; None: none does."""
        found = self._find(service, scope)
        return next((rule for rule in found if isinstance(rule, ClosedRule)), None)

    def _client(
        self, spec: DestinationRuleSpec | None, service: ServiceRecord, scope: Scope
    ) -> tuple[Client | None, str]:
        """Return the properties of the client that matter, and what tells it from other clients of
        the node."""
        if not has_preferences(spec, service):
            return None, ""
        keys = (compared_labels(spec) if spec else frozenset()) | {NETWORK}
        labels = tuple(label for label in scope.labels if label[0] in keys)
        place = scope.locality or self.options.locality
        which = [scope.locality, *(f"{key}={value}" for key, value in labels)]
        said = "~" + ",".join(which) if any(which) else ""
        return Client(place, self.options.node, labels), said

    def _find(self, service: ServiceRecord, scope: Scope) -> tuple[DestinationRule, ...]:
        for namespace in dict.fromkeys(
            (scope.namespace, service.namespace, self.options.root_namespace)
        ):
            table = self.tables.get(namespace)
            for candidates in table.candidates(service.host) if table else ():
                if chosen := _choose(candidates, scope):
                    return tuple(_as_it_holds(rule, service) for rule in chosen)
        return ()


def _table(by_host: dict[str, list[DestinationRule]]) -> RuleTable:
    wildcards = [host for host in by_host if host.startswith("*")]
    return RuleTable(
        {host: tuple(rules) for host, rules in by_host.items() if not host.startswith("*")},
        tuple((host, tuple(by_host[host])) for host in sorted(wildcards, key=specificity)),
    )


def _choose(rules: tuple[DestinationRule, ...], scope: Scope) -> tuple[DestinationRule, ...]:
    """Return, of rules for one host, the one that selects these clients, or all that select no
    workload."""
    anybody: list[DestinationRule] = []
    for rule in rules:
        owner = rule.metadata.namespace
        if not exported(rule.spec.export_to, owner, scope.namespace) and owner != scope.namespace:
            continue
        if rule.spec.workload_selector is None:
            anybody.append(rule)
        elif owner == scope.namespace and scope.has(rule.spec.workload_selector.match_labels):
            return (rule,)
    return tuple(anybody)


def _as_it_holds(rule: DestinationRule, service: ServiceRecord) -> DestinationRule:
    """Return the part of a rule that holds for a service."""
    if isinstance(rule, BoundedRule) and (service.namespace, service.host) in rule.without_subsets:
        return rule.without()
    return rule


def is_for_all(rule: DestinationRule) -> bool:
    """Return whether a rule, in the namespace of its service, is one for all clients alike, and
    needs nothing else than the service."""
    spec = rule.spec
    return (
        exported_to_all(spec.export_to)
        and spec.workload_selector is None
        and not is_counted(spec)
        and not may_prefer(spec)
        and not any(True for _ in credential_names(spec))
    )


def _variant(rules: tuple[DestinationRule, ...]) -> str:
    if not rules:
        return NO_RULE
    names = ",".join(rule.metadata.name for rule in rules)
    return f"{rules[0].metadata.namespace}/{names}"


def _origins(rules: Iterable[DestinationRule]) -> Iterator[tuple[str, Origin]]:
    for rule in rules:
        for index, subset in enumerate(rule.spec.subsets):
            yield subset.name, Origin(rule.key, f"spec.subsets[{index}]")


def _policy_origin(rules: Iterable[DestinationRule]) -> Origin | None:
    found = (rule.key for rule in rules if rule.spec.traffic_policy)
    key = next(found, None)
    return key and Origin(key, "spec.trafficPolicy")


def merge(rules: tuple[DestinationRule, ...]) -> DestinationRuleSpec | None:
    """Return rules for one host as one: all their subsets, the first policy."""
    if not rules:
        return None
    if len(rules) == 1:
        return rules[0].spec
    subsets: dict[str, Subset] = {}
    for rule in rules:
        for subset in rule.spec.subsets:
            subsets.setdefault(subset.name, subset)
    policies = (rule.spec.traffic_policy for rule in rules)
    return DestinationRuleSpec(
        host=rules[0].spec.host,
        traffic_policy=next((policy for policy in policies if policy), None),
        subsets=tuple(subsets.values()),
    )
