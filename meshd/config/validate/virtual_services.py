"""https://istio.io/latest/docs/reference/config/networking/virtual-service/"""

from __future__ import annotations

from collections.abc import Sequence

from meshd.config.read import subdomain_problem
from meshd.config.validate.fields import (
    Report,
    check_export_to,
    check_host,
    check_hosts,
    check_labels,
    check_port,
    check_range,
    is_address,
    is_network,
)
from meshd.config.validate.http_routes import (
    check_delegated_matches,
    check_http_route,
    is_catch_all,
)
from meshd.decoding import Path
from meshd.model.routes import (
    Delegate,
    Destination,
    HTTPRouteDestination,
    L4MatchAttributes,
    RouteDestination,
    TLSMatchAttributes,
    VirtualService,
    VirtualServiceSpec,
)


def check_virtual_service(report: Report, found: VirtualService) -> None:
    spec = found.spec
    if found.is_delegate:
        _check_delegate(report, spec)
    check_hosts(report, ("spec", "hosts"), spec.hosts, addresses=True)
    gateways = spec.gateways or ("mesh",)
    if "*" in spec.hosts and "mesh" in gateways:
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
        if route.delegate or found.is_delegate:
            check_delegated_matches(report, ("spec", "http", index), route)
        for mirror_path, mirror in _mirrors(index, spec):
            check_destination(report, mirror_path, mirror)
    _check_reachable(report, spec)
    _check_connections(report, spec, gateways)


def _check_delegate(report: Report, spec: VirtualServiceSpec) -> None:
    """Without hosts it is a delegate: HTTP routes for others to refer to."""
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


def _check_reachable(report: Report, spec: VirtualServiceSpec) -> None:
    for index, route in enumerate(spec.http[:-1]):
        if is_catch_all(route):
            report.warning(
                ("spec", "http", index + 1),
                f"is never reached: http[{index}] takes every request; put that one last",
            )
            return


def _check_connections(report: Report, spec: VirtualServiceSpec, gateways: tuple[str, ...]) -> None:
    for index, route in enumerate(spec.tls):
        path: Path = ("spec", "tls", index)
        if not route.match:
            report.error((*path, "match"), "needs at least one match with sniHosts")
        for number, match in enumerate(route.match):
            _check_sni(report, (*path, "match", number), match, spec.hosts)
            _check_l4_match(report, (*path, "match", number), match, gateways)
        _check_some_route(report, path, route.route)
    for index, route in enumerate(spec.tcp):
        path = ("spec", "tcp", index)
        for number, match in enumerate(route.match):
            _check_l4_match(report, (*path, "match", number), match, gateways)
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
    check_hosts(report, (*path, "sniHosts"), match.sni_hosts)
    for index, sni in enumerate(match.sni_hosts):
        if not any(_covers(host, sni) for host in hosts):
            report.error((*path, "sniHosts", index), f'"{sni}" is not among spec.hosts')


def _covers(host: str, sni: str) -> bool:
    return host in {"*", sni} or (host.startswith("*.") and sni.endswith(host[1:]))


def _check_l4_match(
    report: Report,
    path: Path,
    match: L4MatchAttributes | TLSMatchAttributes,
    gateways: tuple[str, ...],
) -> None:
    for index, subnet in enumerate(match.destination_subnets):
        if not is_network(subnet):
            report.error(
                (*path, "destinationSubnets", index),
                f'"{subnet}" is not an address or a CIDR such as 198.18.0.0/16',
            )
    if isinstance(match, L4MatchAttributes) and match.source_subnet:
        message = "is passed over, as in Istio; use sourceLabels or sourceNamespace"
        report.warning((*path, "sourceSubnet"), message)
    check_port(report, (*path, "port"), match.port)
    check_labels(report, (*path, "sourceLabels"), match.source_labels)
    check_match_gateways(report, (*path, "gateways"), match.gateways, gateways)


def check_gateway_names(report: Report, path: Path, names: tuple[str, ...]) -> None:
    for index, name in enumerate(names):
        namespace, slash, short = name.rpartition("/")
        problem = subdomain_problem(short) or (slash and subdomain_problem(namespace))
        if name != "mesh" and problem:
            report.error(
                (*path, index), f'"{name}" is no gateway: write NAME, NAMESPACE/NAME or mesh'
            )
        if name in names[:index]:
            report.error((*path, index), f'"{name}" is written twice')


def check_match_gateways(
    report: Report, path: Path, wanted: tuple[str, ...], gateways: tuple[str, ...]
) -> None:
    for index, name in enumerate(wanted):
        if name not in gateways:
            report.error(
                (*path, index),
                f'"{name}" is not among spec.gateways ({", ".join(gateways)}), so nothing matches',
            )


def check_destinations(
    report: Report, path: Path, route: Sequence[HTTPRouteDestination | RouteDestination]
) -> None:
    """Destinations and their weights, which are shares of their sum."""
    for index, one in enumerate(route):
        check_destination(report, (*path, index, "destination"), one.destination)
        check_range(report, (*path, index, "weight"), one.weight, 0, 2**32 - 1)
    if len(route) > 1 and sum(max(one.weight or 0, 0) for one in route) == 0:
        report.error(path, "no destination has a weight above 0; give each its share")


def check_destination(report: Report, path: Path, destination: Destination) -> None:
    if not is_address(destination.host):
        check_destination_host(report, (*path, "host"), destination.host)
    if destination.subset is not None and (problem := subset_problem(destination.subset)):
        report.error((*path, "subset"), problem)
    if destination.port:
        if destination.port.number is None:
            report.error((*path, "port", "number"), "is required")
        check_port(report, (*path, "port", "number"), destination.port.number)


def check_destination_host(report: Report, path: Path, host: str) -> None:
    """A wildcard is that of a service whose names are looked up."""
    if host == "*":
        report.error(path, '"*" is no service; name one')
    else:
        check_host(report, path, host, wildcard=True)


def subset_problem(name: str) -> str:
    """Names of subsets are parts of clusters' names, and a little freer than DNS labels."""
    if name and len(name) <= 63 and all(part.isalnum() or part in "-_." for part in name):
        return ""
    return f'"{name}" is not a name: at most 63 of letters, digits, "-", "_", "."'
