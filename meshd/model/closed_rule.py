"""DestinationRules that are not in force, but whose services must not be reached without them."""

from __future__ import annotations

from meshd.api.base import ObjectMeta
from meshd.api.destination_rule.types import DestinationRule, DestinationRuleSpec


class ClosedRule(DestinationRule, frozen=True):
    """A rule whose settings cannot be used.

    It is looked up like any other rule. Clients for which it holds reach nothing of what it is
    about, because without its TLS settings they would speak to it in plaintext.
    """

    @classmethod
    def of(cls, rule: DestinationRule) -> ClosedRule:
        """Return a rule that is closed for the clients and the hosts of another one."""
        meta, spec = rule.metadata, rule.spec
        return cls(
            metadata=ObjectMeta(name=meta.name, namespace=meta.namespace),
            spec=DestinationRuleSpec(
                host=spec.host,
                export_to=spec.export_to,
                workload_selector=spec.workload_selector,
            ),
        )
