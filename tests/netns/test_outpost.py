"""The wire from which services of the host are probed, where there is one of its name already."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.capture.probes.outpost import INTERFACE, Outpost


def opened() -> None:
    outpost = Outpost()
    try:
        outpost.open()
    finally:
        outpost.close()


def add(*kind: str) -> None:
    subprocess.run(["ip", *kind], check=True)


def test_a_wire_that_another_process_left_is_replaced(network: Any) -> None:
    def story() -> None:
        add("link", "add", INTERFACE, "type", "veth", "peer", "name", "left")
        opened()

    network.inside(story)


def test_what_is_no_wire_is_left_alone(network: Any) -> None:
    def story() -> None:
        add("tuntap", "add", INTERFACE, "mode", "tap")
        with pytest.raises(SystemRefusedError):
            opened()
        add("link", "show", "dev", INTERFACE)

    network.inside(story)
