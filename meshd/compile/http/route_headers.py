"""Header operations of routes and destinations.

What Envoy would refuse, with all routes of the port, is left out here: headers that begin with a
colon, and ``Host``, which is rewritten by a field of its own.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from envoy.config.core.v3 import base_pb2

from meshd.api.traffic import HeaderOperations, Headers

_HOST: Final = frozenset({"host", ":authority"})
_Option = base_pb2.HeaderValueOption

_COMMANDS: Final = (
    "DOWNSTREAM_[A-Z_]+|UPSTREAM_[A-Z_]+|REQ|RESP|TRAILER|PROTOCOL|START_TIME|HOSTNAME|RESPONSE_CODE"
    "|RESPONSE_FLAGS|RESPONSE_CODE_DETAILS|REQUESTED_SERVER_NAME|ROUTE_NAME|VIRTUAL_CLUSTER_NAME"
    "|DYNAMIC_METADATA|CLUSTER_METADATA|FILTER_STATE|STREAM_ID|ENVIRONMENT|CONNECTION_ID"
    "|BYTES_RECEIVED|BYTES_SENT|DURATION|TRACE_ID"
)
_FORMATTED: Final = re.compile(rf"(?:[^%]|%%|%(?:{_COMMANDS})(?:\([^()%]*\))?(?::\d+)?%)*")


@dataclasses.dataclass(frozen=True, slots=True)
class HeaderChanges:
    """Changes to headers, which routes and weighted clusters have in common."""

    request_additions: list[base_pb2.HeaderValueOption]
    request_removals: list[str]
    response_additions: list[base_pb2.HeaderValueOption]
    response_removals: list[str]

    def __add__(self, later: HeaderChanges) -> HeaderChanges:
        return HeaderChanges(
            self.request_additions + later.request_additions,
            self.request_removals + later.request_removals,
            self.response_additions + later.response_additions,
            self.response_removals + later.response_removals,
        )


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


def _additions(operations: HeaderOperations | None) -> list[base_pb2.HeaderValueOption]:
    if operations is None:
        return []
    ways = (
        (operations.set, _Option.OVERWRITE_IF_EXISTS_OR_ADD),
        (operations.add, _Option.APPEND_IF_EXISTS_OR_ADD),
    )
    return [
        _Option(
            header=base_pb2.HeaderValue(key=name, value=header_value(value)),
            append_action=action,
        )
        for values, action in ways
        for name, value in sorted(values.items())
        if _modifiable(name)
    ]


def _removals(operations: HeaderOperations | None) -> list[str]:
    return [name for name in operations.remove if _modifiable(name)] if operations else []


def header_value(text: str) -> str:
    """Return a header's value, in which Envoy's format commands work
    (``%DOWNSTREAM_REMOTE_ADDRESS%``); any other ``%`` is literal."""
    return text if _FORMATTED.fullmatch(text) else text.replace("%", "%%")
