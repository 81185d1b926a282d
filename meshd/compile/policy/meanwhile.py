"""Says what a workload takes while a change of policies waits to be compiled: what the rules in
force allow and those that are wanted allow, too. Pure.

So nothing is allowed too early, and nothing that both allow is denied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

import msgspec

from meshd.compile.plan.authorization import Asking, Authorization, Claim, RequestPrincipal, Rule
from meshd.compile.plan.origin import Origin

MOST_PAIRS: Final = 1000
"""Of rules that both have to fit: where there are more, what may no longer be allowed waits for the
compilation. What is denied does not."""
_BEFORE: Final = "of before"


def meanwhile(before: Authorization | None, now: Authorization | None) -> Authorization | None:
    """Return the rules by which a workload takes what both allow; the very ones of ``before`` if
    these allow nothing that those of ``now`` do not."""
    if now is None or now == before or any(map(_asks_tokens, now.rules)):
        return before  # What reads tokens may not be compiled yet, either.
    if before is None:
        return now
    gone = _without(before.deny, now.deny)
    allow = _allowed(before.allow, now.allow)
    asking = _asking(before.asking, now.asking)
    stays = allow is before.allow and asking == before.asking
    if stays and not _without(now.deny, before.deny):
        return before
    deny = (*now.deny, *map(_of_before, gone))
    # Which tokens are believed waits for the compilation, whatever else does not.
    return msgspec.structs.replace(before, deny=deny, allow=allow, asking=asking)


def _asking(before: Asking | None, now: Asking | None) -> Asking | None:
    """Return whom to ask: about what either asks. Another provider waits, as there is
    one question only."""
    if before is None or now is None:
        return before or now
    if before.provider != now.provider:
        return before
    if not _without(now.rules, before.rules):
        return before
    gone = map(_of_before, _without(before.rules, now.rules))
    return msgspec.structs.replace(now, rules=(*now.rules, *gone))


def _asks_tokens(rule: Rule) -> bool:
    return any(isinstance(test, Claim | RequestPrincipal) for test in rule.tests)


def _allowed(
    before: tuple[Rule, ...] | None, now: tuple[Rule, ...] | None
) -> tuple[Rule, ...] | None:
    if now is None or any(not rule.clauses for rule in now):
        return before  # all are allowed now
    if before is None:
        return now
    gone, come = _without(before, now), _without(now, before)
    if not gone or len(gone) * len(come) > MOST_PAIRS:
        return before
    if not come:
        return now
    common = (rule for rule in now if rule not in come)
    return (*common, *_pairs(gone, come))


def _pairs(before: Collection[Rule], now: Iterable[Rule]) -> Iterator[Rule]:
    """Yield the rules that fit what one of each fits."""
    for one in now:
        for other in before:
            key, field = other.origin.key, other.origin.field
            also = f"{one.origin.field} and {key.namespace}/{key.name} {field} {_BEFORE}"
            yield Rule(
                origin=Origin(one.origin.key, also),
                clauses=(*one.clauses, *other.clauses),
                only_requests=one.only_requests or other.only_requests,
            )


def _of_before(rule: Rule) -> Rule:
    """Return a rule under a name that no rule of now has."""
    origin = Origin(rule.origin.key, f"{rule.origin.field} {_BEFORE}")
    return msgspec.structs.replace(rule, origin=origin)


def _without(rules: Iterable[Rule], others: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules that none of the others is like, whatever they are called."""
    known = {(one.clauses, one.only_requests) for one in others}
    return tuple(one for one in rules if (one.clauses, one.only_requests) not in known)
