"""What nodes share with the host: its rules, its networks and its ports."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import time


def host_rules() -> str:
    """The host's own, without what packets count."""
    saved = "".join(
        subprocess.run([program], capture_output=True, text=True, check=True).stdout
        for program in ("iptables-save", "ip6tables-save")
    )
    lines = [line for line in saved.splitlines() if not line.startswith("#")]
    return re.sub(r"\[\d+:\d+\]", "", "\n".join(lines))


def free_network() -> str:
    """A /24 of 198.18.0.0/16 that no link of this host has."""
    links = subprocess.run(
        ["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True
    ).stdout
    start = int(hashlib.sha256(str((os.getpid(), time.time())).encode()).hexdigest(), 16)
    taken = {int(found) for found in re.findall(r"198\.18\.(\d+)\.", links)}
    choices = (130 + (start + step) % 120 for step in range(120))
    third = next(number for number in choices if number not in taken and reserve(number))
    return f"198.18.{third}.0/24"


_reserved: list[socket.socket] = []


def reserve(number: int) -> bool:
    """Whether no other process of tests has it; until this one ends nobody else gets it."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0meshd-test-network-{number}")
    except OSError:
        mark.close()
        return False
    _reserved.append(mark)
    return True
