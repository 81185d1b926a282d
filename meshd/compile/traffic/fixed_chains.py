"""Chains that are the same in all listeners: traps, refusals, and hops inside the proxy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshd.compile.names import BLACK_HOLE_CLUSTER
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.chains import Chain, Refusal, Tcp
from meshd.compile.plan.choices import ByRules, Way
from meshd.model.snapshot import MeshOptions

REFUSED: Final = "refused"
LOOP: Final = "loop"

REFUSING: Final = Chain(name=REFUSED, target=Refusal())
"""It hangs up at once."""
LOOP_TRAP: Final = Chain(
    name=LOOP,
    target=Tcp(statistics=BLACK_HOLE_CLUSTER, upstreams=((BLACK_HOLE_CLUSTER, 1),)),
)
"""The trap for clients of the listener itself, which would be sent to itself, for ever."""


DENIED: Final = "denied|"
"""How chains of connections are called that policies deny; the name of the rule follows, if it has
a chain of its own."""
_MOST_NAMED: Final = 0
"""Rules with a chain of their own. None: chains that come and go with rules change the listener,
and requests that arrive in that moment fail."""


class Connecting(msgspec.Struct, frozen=True):
    """Who may connect to workloads without speaking HTTP."""

    rules: Mapping[str, Authorization]
    """By uid, of workloads that policies are about."""
    named: frozenset[str]
    """The names of rules whose denials are counted and logged by them."""

    @classmethod
    def of(cls, rules: Mapping[str, Authorization]) -> Connecting:
        every = dict.fromkeys(rule.name for one in rules.values() for rule in one.deny)
        return cls(rules, frozenset(itertools.islice(every, _MOST_NAMED)))

    def choice(self, uid: str, allowed: Way) -> Way:
        """Return the way of connections to a workload, by which those go that it takes."""
        if (rules := self.rules.get(uid)) is None:
            return allowed
        return ByRules(rules, allowed, DENIED, self.named)

    def denying(self, options: MeshOptions) -> Iterator[Chain]:
        """Yield the chains of what is denied: by no rule in particular, whether there are rules or
        not, and by each that has a name."""
        names = ("", *sorted(self.named))
        return (_denying(name, options) for name in names)


def _denying(name: str, options: MeshOptions) -> Chain:
    target = Tcp(
        statistics=f"denied.{name or 'none'}",
        upstreams=((BLACK_HOLE_CLUSTER, 1),),
        access_log=options.access_log,
        denied_by=name,
    )
    return Chain(name=f"{DENIED}{name}", target=target)


def hop(statistics: str, listener: str, *, after_handshake: bool = False) -> Tcp:
    """Return the target of connections that an internal listener takes over. They are not logged
    twice."""
    return Tcp(statistics=statistics, upstreams=((listener, 1),), after_handshake=after_handshake)
