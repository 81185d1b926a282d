"""Validates the destinations of routes: services, subsets, ports and weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from meshd.api.checks import Report, check_host, check_port, check_range
from meshd.api.decode import Path
from meshd.api.virtual_service.types import Destination, HTTPRouteDestination, RouteDestination

_SUBSET: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?")


def check_destinations(
    report: Report, path: Path, route: Sequence[HTTPRouteDestination | RouteDestination]
) -> None:
    """Check destinations and their weights, which are shares of their sum."""
    for index, one in enumerate(route):
        check_destination(report, (*path, index, "destination"), one.destination)
        check_range(report, (*path, index, "weight"), one.weight, 0, 2**31 - 1)
    if len(route) > 1 and sum(max(one.weight or 0, 0) for one in route) == 0:
        report.error(path, "no destination has a weight above 0; give each its share")


def check_destination(report: Report, path: Path, destination: Destination) -> None:
    check_destination_host(report, (*path, "host"), destination.host)
    if destination.subset and (problem := subset_problem(destination.subset)):
        report.error((*path, "subset"), problem)
    if destination.port:
        if destination.port.number is None:
            report.error((*path, "port", "number"), "is required")
        check_port(report, (*path, "port", "number"), destination.port.number)


def check_destination_host(report: Report, path: Path, host: str) -> None:
    """Check a destination's host; a wildcard is that of a service whose names are looked up."""
    if host == "*":
        report.error(path, '"*" is not a service; name one')
    else:
        check_host(report, path, host, wildcard=True)


def subset_problem(name: str) -> str:
    """Return why a text is not a subset's name; empty if it is one. Capital letters are allowed."""
    if _SUBSET.fullmatch(name):
        return ""
    return f'"{name}" is not a name: at most 63 of letters, digits and "-"'
