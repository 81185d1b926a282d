"""Header operations of routes and destinations.

What Envoy would refuse, with all routes of the port, is left out here: headers that begin with a
colon, and ``Host``, which is rewritten by a field of its own.
"""

from __future__ import annotations

import re
from typing import Final

from meshd.api.traffic import HeaderOperations, Headers
from meshd.compile.plan.routes import HeaderAddition, HeaderChanges

_HOST: Final = frozenset({"host", ":authority"})

_COMMANDS: Final = (
    "DOWNSTREAM_[A-Z_]+|UPSTREAM_[A-Z_]+|REQ|RESP|TRAILER|PROTOCOL|START_TIME|HOSTNAME|RESPONSE_CODE"
    "|RESPONSE_FLAGS|RESPONSE_CODE_DETAILS|REQUESTED_SERVER_NAME|ROUTE_NAME|VIRTUAL_CLUSTER_NAME"
    "|DYNAMIC_METADATA|CLUSTER_METADATA|FILTER_STATE|STREAM_ID|ENVIRONMENT|CONNECTION_ID"
    "|BYTES_RECEIVED|BYTES_SENT|DURATION|TRACE_ID"
)
_FORMATTED: Final = re.compile(rf"(?:[^%]|%%|%(?:{_COMMANDS})(?:\([^()%]*\))?(?::\d+)?%)*")


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


def header_value(text: str) -> str:
    """Return a header's value, in which Envoy's format commands work
    (``%DOWNSTREAM_REMOTE_ADDRESS%``); any other ``%`` is literal."""
    return text if _FORMATTED.fullmatch(text) else text.replace("%", "%%")
