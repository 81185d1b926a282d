"""The network between hosts: a bridge in a namespace of its own, cut off from everything else."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

BRIDGE: Final = "br-hosts"
NETWORK: Final = "198.18.240.0/22"
ADDRESS: Final = "02:42:c6:12:f3:fe"
"""Of the bridge itself: 198.18.243.254."""


def address(number: int) -> str:
    return f"198.18.240.{number}"


class Wires:
    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name

    def create(self) -> None:
        _ip("netns", "add", self.name)
        for words in (
            ("link", "set", "lo", "up"),
            # Its own address: else it would be another one with the hosts that come and go.
            ("link", "add", BRIDGE, "address", ADDRESS, "type", "bridge", "forward_delay", "0"),
            ("address", "add", "198.18.243.254/22", "dev", BRIDGE),
            ("link", "set", BRIDGE, "up"),
        ):
            _ip("-n", self.name, *words)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
