"""The wire from which services of the host are probed, where there is one of its name already."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
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


def test_a_wire_without_ipv6_says_so_and_is_good_until_ipv6_is_there(network: Any) -> None:
    def story() -> None:
        everywhere = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
        everywhere.write_text("1")
        outpost = Outpost()
        with contextlib.closing(outpost):
            outpost.open()
            assert outpost.lack(4) == ""
            assert "IPv6 is switched off on meshd-probe" in outpost.lack(6)
            assert not outpost.is_doubted
            (everywhere.parent.parent / INTERFACE / everywhere.name).write_text("0")
            assert outpost.lack(6)
            assert outpost.is_doubted
        everywhere.write_text("0")
        with contextlib.closing(outpost):
            outpost.open()
            assert outpost.lack(6) == ""

    network.inside(story)


def test_the_wire_has_all_its_addresses_at_once_and_the_kernel_adds_none(network: Any) -> None:
    def addresses() -> list[str]:
        command = ["ip", "-6", "-o", "address", "show", "dev", INTERFACE]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [line.split()[3] for line in lines.splitlines() if "tentative" not in line]

    def story() -> None:
        outpost = Outpost()
        with contextlib.closing(outpost):
            outpost.open()
            assert addresses() == ["fd16:9254:7127:1337::7c/127", "fe80::7c/64"]

    network.inside(story)


def test_other_interfaces_are_left_alone(network: Any) -> None:
    def story() -> None:
        add("tuntap", "add", INTERFACE, "mode", "tap")
        with pytest.raises(SystemRefusedError):
            opened()
        add("link", "show", "dev", INTERFACE)

    network.inside(story)
