"""Service records of ServiceEntries. Pure.

https://istio.io/latest/docs/reference/config/networking/service-entry/
"""

from __future__ import annotations

import msgspec

from meshd.api import protocol
from meshd.api.service_entry.types import ServiceEntry, ServicePortEntry
from meshd.api.tunnels import suits_tunnels
from meshd.model.service import Endpoint, Port, Resolution, ServiceRecord
from meshd.registry.addresses import VirtualAddresses
from meshd.registry.selection import Backend, Backends
from meshd.registry.services import preference

_RESOLUTIONS = {
    "NONE": Resolution.NONE,
    "STATIC": Resolution.STATIC,
    "DNS": Resolution.DNS,
    "DNS_ROUND_ROBIN": Resolution.DNS_ROUND_ROBIN,
    "DYNAMIC_DNS": Resolution.DYNAMIC_DNS,
}


def needs_address(entry: ServiceEntry) -> bool:
    """Return whether an entry needs an address: its endpoints are known, and it is not NONE, which
    keeps the client's own destination."""
    return not entry.spec.addresses and entry.spec.resolution != "NONE"


def to_records(
    entry: ServiceEntry, backends: Backends, addresses: VirtualAddresses
) -> tuple[ServiceRecord, ...]:
    """Return one record for each host."""
    return tuple(_to_record(entry, host, backends, addresses) for host in entry.spec.hosts)


def _to_record(
    entry: ServiceEntry, host: str, backends: Backends, addresses: VirtualAddresses
) -> ServiceRecord:
    spec = entry.spec
    allocated = addresses.get(host, ()) if needs_address(entry) else ()
    return ServiceRecord(
        host=host,
        namespace=entry.metadata.namespace,
        entry=entry.metadata.name,
        addresses=spec.addresses or allocated,
        ports=tuple(
            Port(
                port.number,
                port.name,
                protocol.of_entry_port(port.protocol, port.name, port.number),
            )
            for port in spec.ports
        ),
        resolution=_RESOLUTIONS[spec.resolution],
        external=spec.location == "MESH_EXTERNAL",
        prefers=preference(None, entry.metadata.annotations),
        tunnels=suits_tunnels(entry.metadata.annotations),
        export_to=spec.export_to,
        subject_alt_names=spec.subject_alt_names,
        endpoints=_endpoints(entry, host, backends),
    )


def _endpoints(entry: ServiceEntry, host: str, backends: Backends) -> tuple[Endpoint, ...]:
    spec = entry.spec
    if spec.resolution in {"NONE", "DYNAMIC_DNS"}:
        return ()
    if spec.workload_selector:
        found = backends.select(entry.metadata.namespace, spec.workload_selector.labels)
    elif spec.endpoints:
        listed = (one for one in spec.endpoints if one.address)  # others are in other networks
        found = [Backend.of_listed(one, entry.metadata.namespace) for one in listed]
    elif spec.resolution != "STATIC":
        found = [Backend(entry.metadata.namespace, host, {}, "", {}, mutual_tls=False)]
    else:
        found = []
    if spec.location == "MESH_EXTERNAL":
        found = [msgspec.structs.replace(one, mutual_tls=False) for one in found]
    return tuple(
        backend.endpoint(_target(port, backend), port.number)
        for port in spec.ports
        for backend in found
    )


def _target(port: ServicePortEntry, backend: Backend) -> int:
    # A workload's own port names are not the entry's; only a WorkloadEntry maps the entry's names.
    mapped = None if backend.workload else backend.ports.get(port.name)
    return mapped or port.target_port or port.number
