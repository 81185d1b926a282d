"""Networks that no other test of this machine uses at the same time, from whichever checkout."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Generator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

_SMALL: Final = 24


def _routed() -> list[IPv4Network]:
    """Return the networks of up to 256 addresses to which this host has routes: those that are
    larger are used through others."""
    rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    pairs = [(bytes.fromhex(row[1])[::-1], bytes.fromhex(row[7])[::-1]) for row in rows]
    found = (IPv4Network((a, str(IPv4Address(mask)))) for a, mask in pairs)
    return [one for one in found if one.prefixlen >= _SMALL]


@contextlib.contextmanager
def leased_network(candidates: Sequence[str]) -> Generator[str]:
    """Yield one of these networks, which belongs to the caller alone until the block ends.

    An abstract socket says so to all other processes, and ends with this one. Raises RuntimeError
    if all of them are taken.
    """
    routed = _routed()
    for cidr in random.sample(candidates, len(candidates)):
        if any(IPv4Network(cidr).overlaps(one) for one in routed):
            continue
        with socket.socket(socket.AF_UNIX) as lease:
            try:
                lease.bind(f"\0meshd-test-network-{cidr}")
            except OSError:
                continue
            yield cidr
            return
    raise RuntimeError(f"all of {candidates[0]} to {candidates[-1]} are in use")
