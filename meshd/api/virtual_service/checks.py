"""Validates VirtualServices.

https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

from meshd.api.checks import Report, check_export_to, check_hosts
from meshd.api.decode import Path
from meshd.api.gateway.types import MESH
from meshd.api.read import subdomain_problem
from meshd.api.virtual_service.connection_checks import check_connections
from meshd.api.virtual_service.destination_checks import check_destination, check_destinations
from meshd.api.virtual_service.http_checks import check_http_route
from meshd.api.virtual_service.l4_match_checks import gateway_problem
from meshd.api.virtual_service.types import (
    Delegate,
    Destination,
    VirtualService,
    VirtualServiceSpec,
)


def check_virtual_service(report: Report, found: VirtualService) -> None:
    spec = found.spec
    if found.is_delegate:
        _check_delegate(report, spec)
    check_hosts(report, ("spec", "hosts"), spec.hosts, addresses=True)
    _check_distinct(report, ("spec", "hosts"), spec.hosts)
    gateways = spec.gateways or (MESH,)
    if "*" in spec.hosts and MESH in gateways:
        report.error(
            ("spec", "hosts"), 'the host "*" is for gateways only; name the hosts, or a gateway'
        )
    check_gateway_names(report, ("spec", "gateways"), spec.gateways)
    check_export_to(report, ("spec", "exportTo"), spec.export_to)
    if spec.hosts and not (spec.http or spec.tls or spec.tcp):
        report.error(("spec",), "needs at least one of http, tls, tcp")
    for index, route in enumerate(spec.http):
        check_http_route(report, ("spec", "http", index), route, gateways)
        check_destinations(report, ("spec", "http", index, "route"), route.route)
        if route.delegate:
            _check_delegation(report, ("spec", "http", index, "delegate"), route.delegate, found)
        for mirror_path, mirror in _mirrors(index, spec):
            check_destination(report, mirror_path, mirror)
    check_connections(report, spec, gateways)


def _check_delegate(report: Report, spec: VirtualServiceSpec) -> None:
    """Check a delegate, which has no hosts: HTTP routes for others to refer to."""
    for name, given in (("gateways", spec.gateways), ("tls", spec.tls), ("tcp", spec.tcp)):
        if given:
            report.error(
                ("spec", name), "a VirtualService without hosts is a delegate: it has http only"
            )
    if not (spec.http or spec.tls or spec.tcp):
        report.error(("spec", "hosts"), "needs at least one host (or, as a delegate, http routes)")


def _check_delegation(
    report: Report, path: Path, delegate: Delegate, found: VirtualService
) -> None:
    if found.is_delegate:
        report.error(path, "a delegate cannot delegate further; add hosts, or write the routes")
    for name, text in (("name", delegate.name), ("namespace", delegate.namespace)):
        if problem := text and subdomain_problem(text):
            report.error((*path, name), problem)
    if not delegate.name:
        report.error((*path, "name"), "is required")


def _mirrors(index: int, spec: VirtualServiceSpec) -> list[tuple[Path, Destination]]:
    route = spec.http[index]
    path: Path = ("spec", "http", index)
    listed: list[tuple[Path, Destination]] = [
        ((*path, "mirrors", number, "destination"), mirror.destination)
        for number, mirror in enumerate(route.mirrors)
    ]
    return listed + ([((*path, "mirror"), route.mirror)] if route.mirror else [])


def check_gateway_names(report: Report, path: Path, names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        place = (*path, index)
        if problem := gateway_problem(name):
            report.error(place, problem)
        elif "/" not in name and "." in name:
            first, owner, *_ = name.split(".")
            report.warning(place, f'"{name}" is the old form; write {owner}/{first}')
        if name in names[:index]:
            report.warning(place, f'"{name}" is written twice')


def _check_distinct(report: Report, path: Path, hosts: tuple[str, ...]) -> None:
    """Check that no two hosts have a name in common; duplicates are reported elsewhere."""
    places: dict[str, int] = {}
    for index, host in enumerate(hosts):
        first = places.setdefault(host.lower(), index)
        if hosts[first] != host:
            _report_common(report, path, hosts, (first, index))
    sizes = {len(host) - 1 for host in places if host.startswith("*")}
    for host, index in places.items():
        wider = ("*" + host[len(host) - size :] for size in sizes if size <= len(host))
        other = next((one for one in wider if one in places and one != host), None)
        if other is not None:
            _report_common(report, path, hosts, (index, places[other]))


def _report_common(
    report: Report, path: Path, hosts: tuple[str, ...], both: tuple[int, int]
) -> None:
    earlier, later = sorted(both)
    message = f'"{hosts[later]}" and "{hosts[earlier]}" have names in common'
    report.error((*path, later), message)
