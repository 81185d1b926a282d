"""Finds out whether any outside resolver accepts queries.

dnsmasq does not notice that a packet was refused: it waits, and so does its client. While all
outside resolvers refuse, the node's resolver is started without any, and answers so at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Final

from meshd.settings import MeshSettings

Upstream = tuple[str, int]
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_ROOT_SERVERS: Final = b"md\1\0\0\1\0\0\0\0\0\0" + b"\0" + b"\0\2\0\1"
"""RFC 1035, 4.1: who serves the root; whoever takes queries has an answer, whichever it is."""
_ANSWER_LIMIT: Final = 0.2
"""Seconds. A refusal comes sooner than an answer."""
_IN_A_ROW: Final = 3
_SOON: Final = 0.1
_LATER: Final = 3.0
"""Seconds between looks, while something may be wrong and while nothing is."""


def upstreams(settings: MeshSettings, resolv_conf: Path = _RESOLV_CONF) -> tuple[Upstream, ...]:
    """Return the upstreams of the settings, or the host's."""
    if settings.upstreams:
        return settings.upstreams
    try:
        lines = resolv_conf.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    named = [
        words[1] for line in lines if (words := line.split())[:1] == ["nameserver"] and words[1:]
    ]
    return tuple((address, 53) for address in named if _is_address(address))


async def watch(
    listed: Callable[[], Collection[Upstream]],
    tell: Callable[[bool], None],
    refuses: Callable[[Upstream], Awaitable[bool]],
) -> None:
    """Watch until cancelled; tell whether all refuse, after each look that makes sure of it."""
    failures = 0
    while True:
        asked = tuple(listed())
        refused = [await refuses(one) for one in asked]
        failures = failures + 1 if refused and all(refused) else 0
        if failures == 0 or failures >= _IN_A_ROW:
            tell(failures > 0)
        await asyncio.sleep(_SOON if 0 < failures < _IN_A_ROW else _LATER / (3 if failures else 1))


async def refuses(upstream: Upstream) -> bool:
    """Return whether a query is refused. No answer is something else."""
    family = socket.AF_INET6 if ":" in upstream[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(upstream)
            asking.send(_ROOT_SERVERS)
            async with asyncio.timeout(_ANSWER_LIMIT):
                await asyncio.get_running_loop().sock_recv(asking, 512)
        except ConnectionRefusedError:
            return True
        except OSError:  # a timeout is one, too
            return False
    return False


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
