"""Header operations of routes and destinations.

What Envoy would refuse, with all routes of the port, is left out here: headers that begin with a
colon, and ``Host``, which is rewritten by a field of its own.
"""

from __future__ import annotations

from typing import Final

from meshd.api.header_formats import header_value
from meshd.api.networking import HeaderOperations, Headers
from meshd.compile.plan.routes import HeaderAddition, HeaderChanges

_HOST: Final = frozenset({"host", ":authority"})


def header_changes(headers: Headers | None) -> HeaderChanges:
    request, response = (headers.request, headers.response) if headers else (None, None)
    return HeaderChanges(
        _additions(request), _removals(request), _additions(response), _removals(response)
    )


def new_host(headers: Headers | None) -> str:
    """Return the value to which ``Host`` or ``:authority`` is set; empty: neither is."""
    request = headers.request if headers else None
    for operations in (request.set, request.add) if request else ():
        for name, value in operations.items():
            if name.lower() in _HOST:
                return value
    return ""


def _modifiable(name: str) -> bool:
    return not name.startswith(":") and name.lower() not in _HOST


def _additions(operations: HeaderOperations | None) -> tuple[HeaderAddition, ...]:
    if operations is None:
        return ()
    return tuple(
        HeaderAddition(name, header_value(value), append)
        for values, append in ((operations.set, False), (operations.add, True))
        for name, value in sorted(values.items())
        if _modifiable(name)
    )


def _removals(operations: HeaderOperations | None) -> tuple[str, ...]:
    return tuple(name for name in operations.remove if _modifiable(name)) if operations else ()
