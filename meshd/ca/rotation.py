"""Decides which certificates to issue now, and when to look again. Pure.

A certificate is renewed a little before ``renew_at`` of its life time, each identity at a moment of
its own, so that those issued together are not renewed together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Collection, Mapping
from typing import Final

from meshd.base.backoff import Backoff
from meshd.model.workload import Identity

_JITTER: Final = 0.1
"""The part of the time to renewal over which identities are spread; always earlier, never later."""
_SHORTEST: Final = 0.2
"""Seconds between two certificates of an identity: life times dwindle where the CA's own ends."""
_BACKOFF: Final = Backoff(0.5, 30.0)
"""From a failed attempt to the next, unless something has changed for the better."""


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """The times of a certificate: when it was made, and what it says of itself, in Unix seconds."""

    issued: float
    begins: float
    expires: float


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """The last of some attempts in a row to get a certificate, all of which failed."""

    at: float
    attempts: int = 1
    reason: str = ""

    @property
    def forgiven(self) -> Failure:
        """Return the failure as one that delays nothing and is shown until the next attempt."""
        return Failure(-math.inf, 0, self.reason)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    issue: tuple[Identity, ...]
    """Most urgent first: those without a certificate, then by expiry."""
    wake: float | None
    """When something is due again if all of ``issue`` fails or waits; None: nothing ever is."""


def plan(
    allowed: Collection[Identity],
    held: Mapping[Identity, Held],
    failed: Mapping[Identity, Failure],
    now: float,
    renew_at: float,
) -> Plan:
    """Return the certificates that are due; ``renew_at`` is a fraction of the life time."""
    due: dict[Identity, float] = {
        identity: max(
            _due(identity, held.get(identity), now, renew_at), _retry(failed.get(identity), now)
        )
        for identity in allowed
    }
    ready = [identity for identity, moment in due.items() if moment <= now]
    later = [moment for moment in due.values() if moment > now]
    return Plan(
        tuple(sorted(ready, key=lambda identity: (_expiry(held.get(identity)), identity))),
        min(later, default=None),
    )


def renewal(identity: Identity, held: Held, renew_at: float) -> float:
    """Return the Unix time from which a certificate is to be renewed."""
    lifetime = held.expires - held.issued
    part = renew_at * (1 - _JITTER * _spread(identity))
    return held.issued + max(lifetime * part, _SHORTEST)


def _due(identity: Identity, held: Held | None, now: float, renew_at: float) -> float:
    """Return when a certificate is due; one that begins in the future is, since the clock was set
    back."""
    if held is None or now < held.begins:
        return now
    return renewal(identity, held, renew_at)


def _retry(failure: Failure | None, now: float) -> float:
    """Return when to try again; a failure in the future was noted before the clock was set back."""
    if failure is None or failure.at > now:
        return now
    return failure.at + _BACKOFF.pause(failure.attempts)


def _expiry(held: Held | None) -> float:
    return held.expires if held else 0.0


def _spread(identity: Identity) -> float:
    """Return a number from 0 to 1 that is always the same for an identity."""
    digest = hashlib.blake2b(identity.uri.encode(), digest_size=4).digest()
    return int.from_bytes(digest) / 2**32
