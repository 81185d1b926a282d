"""Where connections would go without any DestinationRule: those that were there before a rule came
stay on that way."""

from __future__ import annotations

import dataclasses

import msgspec

from meshd.compile.names import OutboundCluster
from meshd.compile.upstream.destination_rules import RuleSet
from meshd.compile.visibility.view import View


def is_ruled(view: View, host: str) -> bool:
    """Return whether rules may make a service another one for these clients, without closing it to
    them."""
    rules = view.rules(host)
    return not rules.is_closed and (rules.spec is not None or rules.variant != "")


def rules_if_none(view: View, host: str) -> RuleSet:
    """Return what would hold for a service without rules."""
    record = view.services.get(host)
    if record is None or not is_ruled(view, host):
        return view.rules(host)
    none = dataclasses.replace(view.index.rules, tables={})
    return view.as_here(record, none.rules(record, view.scope))


def without_rules(view: View, cluster: OutboundCluster) -> OutboundCluster:
    """Return what would be in a cluster's place without rules."""
    if not is_ruled(view, cluster.host):
        return cluster
    return msgspec.structs.replace(cluster, variant=rules_if_none(view, cluster.host).variant)
