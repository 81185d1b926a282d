"""What systemd is told about the service: sd_notify(3)'s protocol, which is one datagram."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping


def notify(**assignments: str | int) -> None:
    """Such as ``READY=1``. Nothing happens where nobody asked to be told."""
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
    """Seconds between signs of life: half of what systemd waits for. 0: it does not wait."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    try:
        return int(environment.get("WATCHDOG_USEC", "0")) / 2e6
    except ValueError:
        return 0.0


async def feed_watchdog() -> None:
    """Until cancelled. The event loop itself is what the watchdog watches."""
    interval = watchdog_interval(os.environ, os.getpid())
    while interval > 0:
        notify(WATCHDOG=1)
        await asyncio.sleep(interval)
