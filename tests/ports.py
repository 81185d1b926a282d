"""Ports of the loopback device that something else is told to listen at, some time later."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from typing import Final

FIRST: Final = 20_000
LAST: Final = 32_000
"""Below those that the kernel itself gives to whoever connects or binds without a number: it would
give one away again before it is used."""
_EACH: Final = 97
"""Ports from one process of tests to the next; a prime number, so that they seldom meet."""


def _candidates() -> Iterator[int]:
    size = LAST - FIRST
    return (FIRST + number % size for number in itertools.count(os.getpid() * _EACH))


_ports = _candidates()


def free_port() -> int:
    """Return one that nobody has, of TCP and UDP, and that this process gives to nobody else."""
    return next(filter(_is_free, _ports))


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
