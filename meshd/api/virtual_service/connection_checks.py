"""Validates routes of connections in a VirtualService: tls by server name, and tcp."""

from __future__ import annotations

from meshd.api.checks import Report, check_hosts, is_address
from meshd.api.decode import Path
from meshd.api.hosts import covers
from meshd.api.virtual_service.destination_checks import check_destinations
from meshd.api.virtual_service.l4_match_checks import check_l4_match
from meshd.api.virtual_service.types import RouteDestination, TLSMatchAttributes, VirtualServiceSpec


def check_connections(report: Report, spec: VirtualServiceSpec, gateways: tuple[str, ...]) -> None:
    for index, route in enumerate(spec.tls):
        path: Path = ("spec", "tls", index)
        if not route.match:
            report.error((*path, "match"), "needs at least one match with sniHosts")
        for number, match in enumerate(route.match):
            _check_sni(report, (*path, "match", number), match, spec.hosts)
            check_l4_match(report, (*path, "match", number), match, gateways)
        _check_some_route(report, path, route.route)
    for index, route in enumerate(spec.tcp):
        path = ("spec", "tcp", index)
        for number, match in enumerate(route.match):
            check_l4_match(report, (*path, "match", number), match, gateways)
        _check_some_route(report, path, route.route)


def _check_some_route(report: Report, path: Path, route: tuple[RouteDestination, ...]) -> None:
    if not route:
        report.error((*path, "route"), "needs at least one destination")
    check_destinations(report, (*path, "route"), route)


def _check_sni(
    report: Report, path: Path, match: TLSMatchAttributes, hosts: tuple[str, ...]
) -> None:
    if not match.sni_hosts:
        report.error((*path, "sniHosts"), "needs at least one host")
    check_hosts(report, (*path, "sniHosts"), match.sni_hosts, addresses=True, once=False)
    for index, sni in enumerate(match.sni_hosts):
        if is_address(sni):
            message = f'"{sni}" is an address, which clients do not ask for by SNI'
            report.warning((*path, "sniHosts", index), message)
        elif not any(covers(host.lower(), sni.lower()) for host in hosts):
            report.error((*path, "sniHosts", index), f'"{sni}" is not among spec.hosts')
