"""Which names are answered for while proxies change over: none whose addresses they do not know.

A name that leads to a virtual address a moment before proxies know it leads nowhere, also for
clients that reached the host by an address of its own until then. Names that go are answered for no
more at once. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from meshd.model.service import ServiceRecord

Services = Mapping[str, ServiceRecord]


class KnownNames(msgspec.Struct, frozen=True):
    """The services whose names are answered for."""

    newest: Services = {}
    known: Services | None = None
    """Those that proxies knew last; None: that was never seen."""
    told: Services = {}

    def followed(self, newest: Services, published: Services | None, *, lead: bool) -> KnownNames:
        """Return the names after a change. ``lead``: proxies lead connections as published."""
        known = published if published is not None and lead else self.known
        if newest is self.newest and known is self.known:
            return self
        told = newest if known is None or known is newest else _both(newest, known)
        return KnownNames(newest, known, told)


def _both(newest: Services, known: Services) -> Services:
    """Return what there is now of the services that proxies know."""
    pairs = ((key, one, known.get(key)) for key, one in newest.items())
    return {
        key: one if one is before else _as_known(one, before)
        for key, one, before in pairs
        if before
    }


def _as_known(service: ServiceRecord, before: ServiceRecord) -> ServiceRecord:
    if service.headless:
        addresses = {end.address for end in before.endpoints}
        ends = tuple(end for end in service.endpoints if end.address in addresses)
        return msgspec.structs.replace(service, endpoints=ends or service.endpoints)
    kept = tuple(address for address in service.addresses if address in before.addresses)
    return msgspec.structs.replace(service, addresses=kept or before.addresses)
