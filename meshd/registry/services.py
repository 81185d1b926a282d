"""Service records of Kubernetes Services. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from meshd.api import protocol
from meshd.api.hosts import service_host
from meshd.api.kubernetes.types import Service, ServicePort
from meshd.api.tunnels import suits_tunnels
from meshd.base.numbers import whole
from meshd.model.service import Endpoint, Port, Preference, Resolution, ServiceRecord
from meshd.model.snapshot import MeshOptions
from meshd.registry.addresses import VirtualAddresses
from meshd.registry.selection import Backend, Backends, Source

_TRAFFIC_DISTRIBUTION = "networking.istio.io/traffic-distribution"


def host_of(service: Service, domain: str) -> str:
    return service_host(service.metadata.name, service.metadata.namespace, domain)


def is_headless(service: Service) -> bool:
    return (service.spec.cluster_ip or "").lower() == "none" and not is_alias(service)


def is_alias(service: Service) -> bool:
    return service.spec.type == "ExternalName"


def declared_addresses(service: Service) -> tuple[str, ...]:
    given = (*service.spec.cluster_ips, service.spec.cluster_ip or "")
    return tuple(dict.fromkeys(ip for ip in given if ip and ip.lower() != "none"))


def needs_address(service: Service) -> bool:
    return not is_headless(service) and not declared_addresses(service)


def to_record(
    service: Service, backends: Backends, options: MeshOptions, addresses: VirtualAddresses
) -> ServiceRecord:
    domain, node = options.domain, options.node
    spec = service.spec
    host = host_of(service, domain)
    given = () if is_headless(service) else declared_addresses(service)
    allocated = addresses.get(host, ()) if needs_address(service) else ()
    return ServiceRecord(
        host=host,
        namespace=service.metadata.namespace,
        name=service.metadata.name,
        addresses=given or allocated,
        ports=tuple(
            Port(
                port.port,
                port.name,
                protocol.of_service_port(port.protocol, port.name, port.app_protocol, port.port),
            )
            for port in spec.ports
        ),
        resolution=_resolution(service),
        headless=is_headless(service),
        external=is_alias(service),
        prefers=preference(spec.traffic_distribution, service.metadata.annotations),
        sticky=spec.session_affinity == "ClientIP",
        tunnels=suits_tunnels(service.metadata.annotations),
        export_to=service.export_to,
        endpoints=_alias(service) if is_alias(service) else _endpoints(service, backends, node),
    )


def _resolution(service: Service) -> Resolution:
    if is_alias(service):
        return Resolution.DNS
    return Resolution.NONE if is_headless(service) else Resolution.STATIC


def _alias(service: Service) -> tuple[Endpoint, ...]:
    """Return an endpoint for each port; for a port 0, which nothing is sent to, if none is
    listed."""
    name = (service.spec.external_name or "").rstrip(".").lower()
    ports = [(_fixed_port(port), port.port) for port in _sent_to(service)] or [(0, 0)]
    return tuple(
        Endpoint(address=name, port=number, service_port=port) for number, port in ports if name
    )


def _fixed_port(port: ServicePort) -> int:
    return port.target_port if isinstance(port.target_port, int) else port.port


def preference(written: str | None, annotations: Mapping[str, str]) -> Preference:
    """Return the preference of ``trafficDistribution``, or of the annotation that Istio has for it.

    https://kubernetes.io/docs/concepts/services-networking/service/#traffic-distribution
    """
    asked = (written or annotations.get(_TRAFFIC_DISTRIBUTION, "")).lower()
    if asked in {"preferclose", "prefersamezone"}:
        return Preference.SAME_ZONE
    return Preference.SAME_NODE if asked == "prefersamenode" else Preference.ANY


def _endpoints(service: Service, backends: Backends, node: str) -> tuple[Endpoint, ...]:
    spec = service.spec
    found = backends.select(service.metadata.namespace, spec.selector)
    if spec.internal_traffic_policy == "Local":
        found = [backend for backend in found if backend.node and backend.node == node]
    if spec.publish_not_ready_addresses:
        found = [msgspec.structs.replace(backend, ready=True) for backend in found]
    return tuple(
        backend.endpoint(number, port.port)
        for port in _sent_to(service)
        for backend in found
        if (number := _target(port, backend))
    )


def _sent_to(service: Service) -> list[ServicePort]:
    """Return the ports that have endpoints: where one number is declared for UDP and another
    protocol, only the latter, as proxies forward nothing else."""
    ports = service.spec.ports
    forwarded = {port.port for port in ports if port.protocol != "UDP"}
    return [port for port in ports if port.protocol != "UDP" or port.port not in forwarded]


def _target(port: ServicePort, backend: Backend) -> int | None:
    """Return the port of a backend that serves the port; None if the backend has none of that
    name."""
    if backend.source is Source.LISTED:
        return backend.ports.get(port.name)
    if isinstance(port.target_port, str) and whole(port.target_port, 65535) is None:
        return backend.ports.get(port.target_port)
    if not backend.workload and port.name in backend.ports:
        return backend.ports[port.name]  # a WorkloadEntry maps the service's own port names
    return int(port.target_port) if port.target_port else port.port
