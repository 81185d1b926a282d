"""By which addresses others reach this host."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from meshd.errors import InvalidInputError

_ANYWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation (RFC 5737, 3849): the way there is the default route."""
_LOOPBACK_WITHOUT_IPV6: Final = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")


def own_addresses() -> tuple[str, ...]:
    """IPv4 first; those with which the default routes begin. Raises InvalidInputError."""
    found: list[str] = []
    for family, anywhere in _ANYWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as looking:
                looking.connect((anywhere, 9))  # sends nothing
                found.append(looking.getsockname()[0])
        except OSError:
            continue
    if not found:
        raise InvalidInputError(
            "this host has no default route, so that its address is not known; give --address"
        )
    return tuple(found)


def has_ipv6() -> bool:
    """Whether anybody can listen on ``::1``."""
    try:
        return _LOOPBACK_WITHOUT_IPV6.read_text(encoding="ascii").strip() == "0"
    except OSError:
        return False
