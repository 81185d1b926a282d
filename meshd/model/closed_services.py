"""Services that are not in force, but whose hosts must not be reached as if they were none."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeVar

import msgspec

from meshd.api.base import Object, ObjectMeta
from meshd.api.checks import host_problem
from meshd.api.kubernetes.types import Service, ServicePort, ServiceSpec
from meshd.api.service_entry.types import ServiceEntry, ServiceEntrySpec, ServicePortEntry
from meshd.model.service import ServiceRecord

T = TypeVar("T")
_USUAL: Final = ((80, "http"), (443, "tls"))
"""What is closed too of a service of which a part, or any port, cannot be read."""
_BY_NAME: Final = frozenset({"DNS", "DNS_ROUND_ROBIN"})


class ClosedEntry(ServiceEntry, frozen=True):
    """A ServiceEntry that cannot be used: its hosts are known, and nobody reaches them."""

    @classmethod
    def of(cls, entry: ServiceEntry, *, cut: bool = False) -> ClosedEntry:
        """Return an entry that is closed; ``cut``: a part of the other could not be read."""
        spec = entry.spec
        return cls(
            metadata=_meta(entry),
            spec=ServiceEntrySpec(
                hosts=tuple(host for host in spec.hosts if not host_problem(host, wildcard=True)),
                addresses=_addresses(spec.addresses),
                ports=_ports(spec.ports, lambda one: one.number, ServicePortEntry, cut=cut),
                location=spec.location,
                # Whoever takes it for a usual one does not look the host up.
                resolution="STATIC" if spec.resolution in _BY_NAME else spec.resolution,
                export_to=spec.export_to,
            ),
        )


class ClosedService(Service, frozen=True):
    """A Service of Kubernetes that cannot be used: its host is known, and nobody reaches it."""

    @classmethod
    def of(cls, service: Service, *, cut: bool = False) -> ClosedService:
        """Return a service that is closed; ``cut``: a part of the other could not be read."""
        spec = service.spec
        given = _addresses((*spec.cluster_ips, spec.cluster_ip or ""))
        headless = (spec.cluster_ip or "").lower() == "none"
        meta = msgspec.structs.replace(_meta(service), annotations=service.metadata.annotations)
        return cls(
            metadata=meta,
            spec=ServiceSpec(
                ports=_ports(spec.ports, lambda one: one.port, ServicePort, cut=cut),
                selector=spec.selector,
                cluster_ip="None" if headless else next(iter(given), None),
                cluster_ips=() if headless else given,
            ),
        )


def closed_record(record: ServiceRecord) -> ServiceRecord:
    """Return what stays of a service that cannot be compiled."""
    return msgspec.structs.replace(
        record,
        closed=True,
        addresses=_addresses(record.addresses),
        ports=tuple(port for port in record.ports if _is_port(port.number)),
        endpoints=tuple(
            place for place in record.endpoints if record.headless and _addresses((place.address,))
        ),
        subject_alt_names=(),
    )


def _meta(found: Object) -> ObjectMeta:
    meta = found.metadata
    return ObjectMeta(
        name=meta.name, namespace=meta.namespace, creation_timestamp=meta.creation_timestamp
    )


def _ports(
    given: Collection[T], number: Callable[[T], int], make: Callable[[int, str], T], *, cut: bool
) -> tuple[T, ...]:
    """Return the ports that can be used, and the usual ones if there may have been others."""
    kept = tuple(one for one in given if _is_port(number(one)))
    if kept and not cut and len(kept) == len(given):
        return kept
    known = {number(one) for one in kept}
    return (*kept, *(make(port, name) for port, name in _USUAL if port not in known))


def _is_port(number: int) -> bool:
    return 0 < number < 65536


def _addresses(written: Iterable[str]) -> tuple[str, ...]:
    """Return those that are addresses or networks."""
    found: dict[str, None] = {}
    for address in written:
        with contextlib.suppress(ValueError):
            ipaddress.ip_network(address)
            found[address] = None
    return tuple(found)
