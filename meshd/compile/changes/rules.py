"""Tells of which hosts the DestinationRules differ between two snapshots.

Rules that hold for all clients alike reach no further than the services that their hosts cover.
Rules for some workloads, by locality, with counts or credentials reach further, and so do
replacements.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshd.api.hosts import covers, resolve
from meshd.api.networking import DestinationRule
from meshd.base.sequence_difference import SequenceDifference
from meshd.compile.upstream.destination_rules import is_for_all
from meshd.model.snapshot import Snapshot


def hosts_of_changed_rules(old: Snapshot, new: Snapshot) -> frozenset[str] | None:
    """Return the hosts for which rules have come, gone or changed; None: they reach further, or the
    order of others has changed."""
    before, after = old.destination_rules, new.destination_rules
    difference = SequenceDifference.between(before, after)
    gone, come = difference.of_old(before), difference.of_new(after)
    differing = _differing(gone, come)
    if differing is None or not all(map(_is_of_services, differing)):
        return None
    return frozenset(
        host for one in (old, new) for rule in differing for host in _covered(rule, one)
    )


def _covered(rule: DestinationRule, snapshot: Snapshot) -> Iterator[str]:
    services = snapshot.services
    host = resolve(rule.spec.host, rule.metadata.namespace, snapshot.options.domain, services)
    if host.startswith("*"):
        yield from (one.host for one in services.values() if covers(host, one.host))
    else:
        yield host


def _differing(
    gone: Sequence[DestinationRule], come: Sequence[DestinationRule]
) -> list[DestinationRule] | None:
    """Return the rules of either that the other lacks; None: the others' order differs."""
    old, new = ({one.key: one for one in found} for found in (gone, come))
    if [key for key in old if key in new] != [key for key in new if key in old]:
        return None
    return [
        one
        for here, there in ((old, new), (new, old))
        for one in here.values()
        if there.get(one.key) != one
    ]


def _is_of_services(rule: DestinationRule) -> bool:
    return type(rule) is DestinationRule and is_for_all(rule)
