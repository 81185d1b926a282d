"""The host names to which the page answers.

A browser asks the address that a name stands for, and the owner of the name may point it to ours
(DNS rebinding): a page of theirs could then read what is served here. An address in the Host header
belongs to no name.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def own_names(node: str, address: str, further: Collection[str] = ()) -> frozenset[str]:
    names = ("localhost", node, socket.gethostname(), address, *further)
    return frozenset(name.lower().rstrip(".") for name in names if name)


def is_ours(header: str, names: Collection[str]) -> bool:
    """Return whether a Host header (RFC 9110, section 7.2) names this host. Pure."""
    text = header.strip().lower()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            return False
    else:
        host, colon, port = text.partition(":")
        rest = colon + port
    if rest and not (rest[0] == ":" and rest[1:].isascii() and rest[1:].isdigit()):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".") in names
    return True


class OwnHosts:
    """Answers requests for other hosts with 421 and without any content."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not is_ours(hosts[0].decode("latin-1"), self._names):
                text = "this host is not served here; see telemetry.hosts in meshd.yaml\n"
                await PlainTextResponse(text, status_code=421)(scope, receive, send)
                return
        await self._app(scope, receive, send)
