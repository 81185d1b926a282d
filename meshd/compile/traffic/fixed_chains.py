"""Chains that are the same in all listeners: traps, refusals, and hops inside the proxy."""

from __future__ import annotations

from collections.abc import Mapping
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


class Connecting(msgspec.Struct, frozen=True):
    """Who may connect to workloads without speaking HTTP."""

    rules: Mapping[str, Authorization]
    """By uid, of workloads that policies are about."""

    def choice(self, uid: str, allowed: Way) -> Way:
        """Return the way of connections to a workload, by which those go that it takes."""
        if (rules := self.rules.get(uid)) is None:
            return allowed
        return ByRules(rules, allowed, DENIED)


def denying(options: MeshOptions) -> Chain:
    """Return the chain of connections that policies deny.

    There is one for all rules, and whether there are rules or not: a chain that comes or goes with
    them changes the listener, and requests that arrive in that moment fail.
    """
    target = Tcp(
        statistics="denied.none",
        upstreams=((BLACK_HOLE_CLUSTER, 1),),
        access_log=options.access_log,
        denied=True,
    )
    return Chain(name=DENIED, target=target)


def hop(statistics: str, listener: str, *, after_handshake: bool = False) -> Tcp:
    """Return the target of connections that an internal listener takes over. They are not logged
    twice."""
    return Tcp(statistics=statistics, upstreams=((listener, 1),), after_handshake=after_handshake)
