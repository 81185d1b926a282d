"""Validates Gateways. https://istio.io/latest/docs/reference/config/networking/gateway/"""

from __future__ import annotations

from typing import Final

from meshd.api.checks import (
    Report,
    check_host,
    check_labels,
    check_port,
    is_address,
    is_partial_wildcard,
)
from meshd.api.decode import Path, nearest
from meshd.api.gateway.tls_checks import ENCRYPTED, check_server_tls
from meshd.api.gateway.types import Gateway, Server
from meshd.api.read import label_problem

_PROTOCOLS: Final = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "TCP", "TLS")


def check_gateway(report: Report, found: Gateway) -> None:
    if problem := label_problem(found.metadata.name):
        report.error(("metadata", "name"), problem)
    servers = found.spec.servers
    if not servers:
        report.error(("spec", "servers"), "needs at least one server")
    if not found.spec.selector:
        report.warning(("spec", "selector"), "is empty: every gateway workload serves it")
    check_labels(report, ("spec", "selector"), found.spec.selector)
    names: dict[str, int] = {}
    protocols: dict[int, str] = {}
    for index, server in enumerate(servers):
        path: Path = ("spec", "servers", index)
        _check_server(report, path, server)
        first = names.setdefault(server.port.name, index)
        if first != index:
            report.error(
                (*path, "port", "name"),
                f'"{server.port.name}" is the port name of servers[{first}] already',
            )
        family = _family(server.port.protocol)
        other = protocols.setdefault(server.port.number, family)
        if other != family:
            report.error(
                (*path, "port", "protocol"),
                f"port {server.port.number} cannot speak {family} and {other}; use another number",
            )


def _family(protocol: str) -> str:
    upper = protocol.upper()
    if upper in ENCRYPTED:
        return "TLS"
    return "TCP" if upper in {"TCP", "MONGO"} else "HTTP"


def _check_server(report: Report, path: Path, server: Server) -> None:
    check_port(report, (*path, "port", "number"), server.port.number)
    if server.port.target_port:
        message = "has no effect in a Gateway; the Service in front of it has one"
        report.error((*path, "port", "targetPort"), message)
    if not server.port.name:
        report.error((*path, "port", "name"), "is required")
    protocol = server.port.protocol.upper()
    if protocol not in _PROTOCOLS:
        hint = nearest(protocol, _PROTOCOLS)
        report.error((*path, "port", "protocol"), f'"{server.port.protocol}" is unknown{hint}')
    if not server.hosts:
        report.error((*path, "hosts"), "needs at least one host")
    for index, host in enumerate(server.hosts):
        _check_server_host(report, (*path, "hosts", index), host)
    if server.bind and not is_address(server.bind):
        report.error((*path, "bind"), f'"{server.bind}" is not an IP address')
    elif server.bind:
        report.warning((*path, "bind"), "is ignored: all addresses of the workload are served")
    if server.default_endpoint:
        report.warning((*path, "defaultEndpoint"), "is ignored, as in Istio")
    if server.tls:
        check_server_tls(report, (*path, "tls"), server.tls, protocol)
    elif protocol in ENCRYPTED:
        report.error((*path, "tls"), f"{protocol} needs it")


def _check_server_host(report: Report, path: Path, host: str) -> None:
    namespace, slash, name = host.rpartition("/")
    if slash and namespace not in {".", "*"} and (problem := label_problem(namespace)):
        report.error(path, f'{problem} (or "." for this namespace, "*" for all)')
    if is_address(name):
        return
    check_host(report, path, name, wildcard=True)
    if is_partial_wildcard(name):
        report.error(path, f'"{name}": a wildcard is a whole label, as in *.example.com')
    elif name and name != "*" and "." not in name:
        report.error(path, f'"{name}" is a short name; write it whole, as clients ask for it')
