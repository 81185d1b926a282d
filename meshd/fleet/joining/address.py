"""Addresses of servers as users write them, and in full. Pure."""

from __future__ import annotations

from typing import Final

from meshd.base.errors import InvalidInputError
from meshd.base.numbers import whole

DEFAULT_PORT: Final = 15012


def address_of(server: str) -> str:
    """Return ``HOST[:PORT]`` with the port filled in. Raises InvalidInputError."""
    host, port = split_address(server)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(server: str) -> tuple[str, int]:
    """Split ``HOST[:PORT]``, ``[IPV6]:PORT`` or a bare IPv6 address into host and port."""
    text = server.strip()
    bare = text.count(":") > 1 and not text.startswith("[")
    host, _, port = (text, "", "") if bare else text.rpartition(":")
    if not bare and (not host or text.endswith("]")):
        host, port = text, ""
    host = host.removeprefix("[").removesuffix("]")
    number = whole(port, 65535) if port else DEFAULT_PORT
    if not host or not number:
        raise InvalidInputError(f"{server!r} is not an address of a server: give HOST or HOST:PORT")
    return host, number
