"""Validates changes of headers by routes."""

from __future__ import annotations

from meshd.api.checks import Report, header_problem, header_value_problem
from meshd.api.decode import Path
from meshd.api.header_formats import is_known
from meshd.api.virtual_service.types import Headers, HTTPRoute


def check_headers(report: Report, path: Path, headers: Headers | None) -> None:
    if headers is None:
        return
    for field, operations in (("request", headers.request), ("response", headers.response)):
        if operations is None:
            continue
        for verb, names in (
            ("set", operations.set),
            ("add", operations.add),
            ("remove", operations.remove),
        ):
            for name in names:
                place = (*path, field, verb, name)
                if problem := header_problem(name.removeprefix(":")):
                    report.error(place, problem)
                elif _is_authority(name) and (field == "response" or verb == "remove"):
                    report.error(place, f'"{name}" can be set in requests only')
                elif name.startswith(":") and not _is_authority(name):
                    report.error(place, f'"{name}" cannot be changed')
        for verb, values in (("set", operations.set), ("add", operations.add)):
            for name, value in values.items():
                if problem := header_value_problem(value):
                    report.error((*path, field, verb, name), problem)
                elif not is_known(value):
                    message = (
                        f'"{value}" has a variable that proxies do not fill in; it is sent as it is'
                    )
                    report.warning((*path, field, verb, name), message)


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
