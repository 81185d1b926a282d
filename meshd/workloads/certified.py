"""Which identities have a valid certificate, as far as the identity role has told. Pure.

Proxies keep a certificate until it expires, whatever becomes of the role that made it. So one that
is not told of any more, since that role has begun anew, counts until then, too, unless its identity
was given up meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from meshd.wire import CertificateState


class Certified(msgspec.Struct, frozen=True):
    """What was told since this process began."""

    expiries: Mapping[str, float] = {}
    """When certificates expire, in Unix seconds, by the URI of their identity."""
    told: frozenset[str] = frozenset()
    """Identities, as URIs, of which it was told that there is a certificate, or why there is
    none."""

    def telling(self, states: Iterable[CertificateState]) -> Certified:
        """Return what is known after a message of the identity role."""
        found = tuple(states)
        news = {one.uri: one.expires for one in found if one.serial}
        told = self.told | {one.uri for one in found}
        return Certified({**self.expiries, **news}, told)

    def allowing(self, uris: Collection[str]) -> Certified:
        """Return what is known of these identities: all others are given up."""
        if self.told.issubset(uris):
            return self
        expiries = {uri: at for uri, at in self.expiries.items() if uri in uris}
        return Certified(expiries, self.told.intersection(uris))

    def valid(self, now: float) -> frozenset[str]:
        """Return the identities that have a valid certificate at a moment, in Unix seconds."""
        return frozenset(uri for uri, expires in self.expiries.items() if expires > now)

    def next_expiry(self, now: float) -> float | None:
        """Return when the first of the valid certificates expires, in Unix seconds; None: there are
        none."""
        return min((one for one in self.expiries.values() if one > now), default=None)
