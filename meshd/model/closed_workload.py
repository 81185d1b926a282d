"""WorkloadEntries that are not in force, but whose addresses must not be reached without them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

import msgspec

from meshd.api.base import Key, ObjectMeta
from meshd.api.service_entry.types import WorkloadEntry, WorkloadEntrySpec

UNIT: Final = "meshd.io/unit"
"""The annotation by which an entry declares a service of a host: its unit."""


class ClosedWorkload(WorkloadEntry, frozen=True):
    """A WorkloadEntry that cannot be used: its address is known, and nobody reaches it.

    It is no endpoint of a service. Connections to its address would otherwise be taken for those to
    any place outside of the mesh: in plaintext, and past the routes and rules of its services. One
    that declares a service of a host says what it takes to keep that in the mesh.
    """

    @classmethod
    def of(cls, entry: WorkloadEntry) -> ClosedWorkload | None:
        """Return an entry that is closed at the address of another one; None if that has no IP
        address.

        An entry with a host name, or with a network alone, is reached by the names of its services
        only, and these lose it.
        """
        address = plain_address(entry.spec.address)
        if not address:
            return None
        meta, spec = entry.metadata, entry.spec
        unit = meta.annotations.get(UNIT)
        if not unit:
            named = ObjectMeta(name=meta.name, namespace=meta.namespace)
            return cls(metadata=named, spec=WorkloadEntrySpec(address=address))
        declared = ObjectMeta(name=meta.name, namespace=meta.namespace, annotations={UNIT: unit})
        captured = WorkloadEntrySpec(
            address=address, ports=spec.ports, service_account=spec.service_account
        )
        return cls(metadata=declared, spec=captured)


class ClosedAddress(msgspec.Struct, frozen=True):
    """An address at which nobody is reached."""

    address: str
    key: Key
    """The WorkloadEntry that is not in force."""


def closed_addresses(
    entries: Iterable[ClosedWorkload], declared: Iterable[str]
) -> tuple[ClosedAddress, ...]:
    """Return the addresses of entries, each once, but for those that are ``declared`` by others.

    What is declared may be host names and networks, too.
    """
    closed = {one.spec.address: ClosedAddress(one.spec.address, one.key) for one in entries}
    for text in declared if closed else ():
        is_long = ":" in text  # only such an address can be written in several ways
        single = text.removesuffix("/128" if is_long else "/32")
        closed.pop(plain_address(single) if is_long else single, None)
    return tuple(one for _, one in sorted(closed.items()))


def plain_address(text: str) -> str:
    """Return an address as the listeners see it; empty for what is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
