"""Messages about the service to systemd: the protocol of sd_notify(3), one datagram each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping


def notify(**assignments: str | int) -> None:
    """Send assignments such as ``READY=1``; does nothing where no manager asked for them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    text = "\n".join(f"{key}={value}" for key, value in assignments.items())
    # "@" is an abstract socket's zero byte.
    target = "\0" + address[1:] if address.startswith("@") else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.sendto(text.encode(), target)


def watchdog_interval(environment: Mapping[str, str], pid: int) -> float:
    """Return the seconds between signs of life, half of what systemd waits; 0 if it does not
    wait."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    try:
        return int(environment.get("WATCHDOG_USEC", "0")) / 2e6
    except ValueError:
        return 0.0


async def feed_watchdog() -> None:
    """Send signs of life until cancelled. The watchdog watches the event loop itself."""
    interval = watchdog_interval(os.environ, os.getpid())
    while interval > 0:
        notify(WATCHDOG=1)
        await asyncio.sleep(interval)
