"""Validates what matches of all protocols share: the source of connections, and the port."""

from __future__ import annotations

from meshd.api.checks import Report, check_labels, check_port, host_problem, is_network
from meshd.api.decode import Path
from meshd.api.read import label_problem
from meshd.api.virtual_service.types import L4MatchAttributes, TLSMatchAttributes


def check_l4_match(
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
        message = "is ignored, as in Istio; use sourceLabels or sourceNamespace"
        report.warning((*path, "sourceSubnet"), message)
    check_port(report, (*path, "port"), match.port or None)
    check_labels(report, (*path, "sourceLabels"), match.source_labels)
    check_match_gateways(report, (*path, "gateways"), match.gateways, gateways)


def check_match_gateways(
    report: Report, path: Path, wanted: tuple[str, ...], gateways: tuple[str, ...]
) -> None:
    for index, name in enumerate(wanted):
        if problem := gateway_problem(name):
            report.error((*path, index), problem)
        elif name not in gateways:
            report.warning(
                (*path, index),
                f'"{name}" is not among spec.gateways ({", ".join(gateways)}), so nothing matches',
            )


def check_source_namespace(report: Report, path: Path, namespace: str | None) -> None:
    if namespace and (problem := label_problem(namespace.lower())):
        report.error(path, problem)


def gateway_problem(name: str) -> str:
    """Return why a name is not a gateway's; empty if it is one."""
    namespace, slash, short = name.rpartition("/")
    if slash:
        wrong = label_problem(namespace.lower()) or label_problem(short.lower())
    else:
        wrong = host_problem(name, wildcard=False)
    return f'"{name}" is not a gateway: write NAME, NAMESPACE/NAME or mesh' if wrong else ""
