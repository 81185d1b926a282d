"""Validates changes of headers by routes."""

from __future__ import annotations

from typing import Final

from meshd.api.checks import Report, header_problem, header_value_problem
from meshd.api.decode import Path
from meshd.api.header_formats import header_value, is_known
from meshd.api.virtual_service.types import HeaderOperations, Headers, HTTPRoute

_LONGEST: Final = 16_384
"""Bytes of a header's name, and of its value: Envoy refuses more."""
_MOST: Final = 1000
"""Headers that a route sets and adds: Envoy refuses more."""
_SHOWN: Final = 64
"""Characters of a header's name that are shown."""


def check_headers(report: Report, path: Path, headers: Headers | None) -> None:
    if headers is None:
        return
    for field, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
        _check_sizes(report, (*path, field), operations)
        for verb, names in (
            ("set", operations.set),
            ("add", operations.add),
            ("remove", operations.remove),
        ):
            for name in names:
                can_be_authority = field == "request" and verb != "remove"
                _check_name(report, (*path, field, verb, name), name, authority=can_be_authority)
        for verb, values in (("set", operations.set), ("add", operations.add)):
            for name, value in values.items():
                if problem := header_value_problem(value):
                    report.error((*path, field, verb, name), problem)
                elif not is_known(value):
                    message = (
                        f'"{value}" has a variable that proxies do not fill in; it is sent as it is'
                    )
                    report.warning((*path, field, verb, name), message)


def _check_name(report: Report, path: Path, name: str, *, authority: bool) -> None:
    if not name:
        report.refused(path, "a header needs a name")
    elif problem := header_problem(name.removeprefix(":")):
        report.error(path, problem)
    elif _is_authority(name) and not authority:
        report.error(path, f'"{name}" can be set in requests only')
    elif name.startswith(":") and not _is_authority(name):
        report.error(path, f'"{name}" cannot be changed')


def _check_sizes(report: Report, path: Path, operations: HeaderOperations) -> None:
    count = len(operations.set) + len(operations.add)
    if count > _MOST:
        report.refused(path, f"sets and adds {count} headers, and at most {_MOST} are taken")
    for verb, values in (("set", operations.set), ("add", operations.add)):
        for name, value in values.items():
            if max(len(name.encode()), len(header_value(value).encode())) > _LONGEST:
                message = f"is longer than {_LONGEST} bytes (a % that begins no variable is two)"
                report.refused((*path, verb, name[:_SHOWN]), message)


def _is_authority(header: str) -> bool:
    return header.lower() in {"host", ":authority"}


def check_authority(report: Report, path: Path, route: HTTPRoute) -> None:
    """Check that the authority is set in one place only."""
    request = route.headers.request if route.headers else None
    changes = [*request.set, *request.add] if request else []
    places = [f"headers.request ({name})" for name in changes if _is_authority(name)]
    if route.rewrite and route.rewrite.authority:
        places.append("rewrite.authority")
    if len(places) > 1:
        report.error(path, f"sets the authority in {' and in '.join(places)}; remove one")
