"""Validates ServiceEntries and WorkloadEntries.

https://istio.io/latest/docs/reference/config/networking/service-entry/ and workload-entry/.
"""

from __future__ import annotations

from meshd.api import protocol
from meshd.api.checks import (
    Report,
    check_export_to,
    check_hosts,
    check_labels,
    check_port,
    check_port_name,
    check_range,
    check_selector,
    check_service_account,
    host_problem,
    is_address,
    is_network,
    is_partial_wildcard,
)
from meshd.api.decode import Path, nearest
from meshd.api.destination_rule.localities import check_locality
from meshd.api.protocol import Protocol
from meshd.api.service_entry.types import (
    ServiceEntry,
    ServiceEntrySpec,
    WorkloadEntry,
    WorkloadEntrySpec,
)
from meshd.api.tunnels import check_tunnels


def check_service_entry(report: Report, found: ServiceEntry) -> None:
    check_tunnels(report, found.metadata)
    spec = found.spec
    if not spec.hosts:
        report.error(("spec", "hosts"), "needs at least one host")
    check_hosts(report, ("spec", "hosts"), spec.hosts, once=False)
    for index, host in enumerate(spec.hosts):
        if is_partial_wildcard(host):
            message = f'"{host}" is in no DNS answer: a wildcard is a whole label there'
            report.warning(("spec", "hosts", index), message)
    if "*" in spec.hosts:
        report.error(("spec", "hosts"), 'the host "*" is too wide; name a domain: *.example.com')
    check_export_to(report, ("spec", "exportTo"), spec.export_to, hidden=True)
    _check_addresses(report, spec)
    _check_ports(report, spec)
    _check_resolution(report, spec)
    for index, endpoint in enumerate(spec.endpoints):
        _check_endpoint(report, ("spec", "endpoints", index), endpoint)
        _check_mapped_ports(report, ("spec", "endpoints", index), endpoint, spec)
        if spec.resolution == "STATIC" and endpoint.address and not is_address(endpoint.address):
            report.error(
                ("spec", "endpoints", index, "address"),
                f'"{endpoint.address}" is not an IP address; names need resolution: DNS',
            )
    if spec.workload_selector:
        path = ("spec", "workloadSelector")
        check_labels(report, (*path, "labels"), spec.workload_selector.labels)
        check_selector(report, path, spec.workload_selector.labels)
        if spec.resolution not in {"STATIC", "DYNAMIC_DNS"}:
            message = f"has no effect with resolution: {spec.resolution}; use STATIC"
            report.warning(path, message)


def check_workload_entry(report: Report, found: WorkloadEntry) -> None:
    _check_endpoint(report, ("spec",), found.spec)


def _check_addresses(report: Report, spec: ServiceEntrySpec) -> None:
    for index, address in enumerate(spec.addresses):
        path: Path = ("spec", "addresses", index)
        if not is_network(address):
            report.error(path, f'"{address}" is not an IP address or a CIDR')
        elif "/" in address and spec.resolution not in {"NONE", "STATIC"}:
            report.error(path, f"a CIDR is not possible with resolution: {spec.resolution}")
    raw = [port.name for port in spec.ports if (port.protocol or "TCP").upper() == "TCP"]
    if raw and not spec.addresses and spec.resolution == "NONE":
        report.warning(
            ("spec", "addresses"),
            f'port "{raw[0]}" is TCP, and without addresses nothing tells this host from others',
        )


def _check_ports(report: Report, spec: ServiceEntrySpec) -> None:
    if not spec.ports:
        report.warning(("spec", "ports"), "has no effect: without ports nothing is routed to it")
    numbers: set[int] = set()
    names: set[str] = set()
    for index, port in enumerate(spec.ports):
        path: Path = ("spec", "ports", index)
        check_port(report, (*path, "number"), port.number)
        check_port(report, (*path, "targetPort"), port.target_port)
        if port.target_port and spec.resolution == "NONE":
            message = "has no effect: resolution: NONE keeps the port that the client asks for"
            report.warning((*path, "targetPort"), message)
        check_port_name(report, (*path, "name"), port.name)
        if port.protocol and port.protocol.lower() not in protocol.KNOWN:
            hint = nearest(port.protocol.upper(), [name.upper() for name in protocol.KNOWN])
            report.error((*path, "protocol"), f'"{port.protocol}" is unknown{hint}')
        if port.number in numbers:
            report.error((*path, "number"), f"the port {port.number} is written twice")
        if port.name in names:
            report.error((*path, "name"), f'the name "{port.name}" is written twice')
        numbers.add(port.number)
        names.add(port.name)


def _check_resolution(report: Report, spec: ServiceEntrySpec) -> None:
    if spec.endpoints and spec.workload_selector:
        report.error(
            ("spec", "workloadSelector"), "stands in place of endpoints; only one is possible"
        )
    listed = bool(spec.endpoints or spec.workload_selector)
    if spec.resolution == "NONE" and spec.endpoints:
        report.error(
            ("spec", "endpoints"), "resolution: NONE takes the client's address; use STATIC or DNS"
        )
    if spec.resolution == "STATIC" and not listed:
        message = "are left out, and resolution: STATIC has no others: requests are answered 503"
        report.warning(("spec", "endpoints"), message)
    _check_several_hosts(report, spec)
    if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
        report.error(("spec", "endpoints"), "resolution: DNS_ROUND_ROBIN has at most one")
    if spec.resolution == "DYNAMIC_DNS":
        _check_dynamic(report, spec)
        return
    wild = [index for index, host in enumerate(spec.hosts) if host.startswith("*")]
    if spec.resolution.startswith("DNS") and not listed:
        for index in wild:
            report.error(
                ("spec", "hosts", index),
                f'"{spec.hosts[index]}" cannot be resolved; list endpoints, or use NONE',
            )


def _check_several_hosts(report: Report, spec: ServiceEntrySpec) -> None:
    """Check hosts that share an address or endpoint: only the client's request tells them apart."""
    if len(spec.hosts) < 2 or spec.resolution == "NONE":
        return
    for index, port in enumerate(spec.ports):
        kind = protocol.of_entry_port(port.protocol, port.name, port.number)
        if not port.protocol or not (kind.is_http or kind in {Protocol.HTTPS, Protocol.TLS}):
            what = port.protocol or "an unknown protocol"
            message = f"{what} does not say which of several hosts is meant; use one host"
            report.error(("spec", "ports", index, "protocol"), message)


def _check_dynamic(report: Report, spec: ServiceEntrySpec) -> None:
    """Check an entry whose hosts are looked up by a request's own name: it needs a protocol with
    one."""
    for index, host in enumerate(spec.hosts):
        if not host.startswith("*."):
            report.error(
                ("spec", "hosts", index),
                f'"{host}" is not a wildcard; DYNAMIC_DNS is for *.{host}, DNS for one name',
            )
    if spec.location != "MESH_EXTERNAL":
        report.error(("spec", "location"), "DYNAMIC_DNS is for MESH_EXTERNAL only")
    for index, port in enumerate(spec.ports):
        kind = protocol.of_entry_port(port.protocol, port.name, port.number)
        if not port.protocol or not (kind.is_http or kind in {Protocol.HTTPS, Protocol.TLS}):
            report.error(
                ("spec", "ports", index, "protocol"),
                "DYNAMIC_DNS needs a protocol that names the host: HTTP, HTTP2, GRPC, HTTPS, TLS",
            )
    for name, given in (("endpoints", spec.endpoints), ("addresses", spec.addresses)):
        if given:
            report.error(("spec", name), "DYNAMIC_DNS looks up each request's host; remove it")
    if spec.workload_selector:
        message = "is ignored: DYNAMIC_DNS looks up each request's host"
        report.warning(("spec", "workloadSelector"), message)


def _check_endpoint(report: Report, path: Path, endpoint: WorkloadEntrySpec) -> None:
    address = endpoint.address
    if not address and endpoint.network:
        report.warning((*path, "address"), f"is left out: nothing of {endpoint.network} is reached")
    elif not address:
        report.error((*path, "address"), "is required")
    elif address.startswith("unix:"):
        report.error((*path, "address"), "unix sockets are not supported; use an IP address")
    elif not is_address(address) and host_problem(address, wildcard=False):
        report.error((*path, "address"), f'"{address}" is not an IP address or a host name')
    check_service_account(report, (*path, "serviceAccount"), endpoint.service_account)
    for name, number in endpoint.ports.items():
        check_port_name(report, (*path, "ports", name), name)
        check_port(report, (*path, "ports", name), number)
    check_labels(report, (*path, "labels"), endpoint.labels)
    check_locality(report, (*path, "locality"), endpoint.locality)
    check_range(report, (*path, "weight"), endpoint.weight, 0, 2**32 - 1)


def _check_mapped_ports(
    report: Report, path: Path, endpoint: WorkloadEntrySpec, spec: ServiceEntrySpec
) -> None:
    names = [port.name for port in spec.ports]
    for name in endpoint.ports:
        if name not in names:
            hint = nearest(name, names)
            report.error((*path, "ports", name), f'"{name}" is not a name in spec.ports{hint}')
