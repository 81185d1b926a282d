"""Which of a namespace's addresses others are told."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from meshd.base.own_addresses import Address, first_of_each, read

NEWADDR = 20


def body(address: str, *, scope: int = 0, flags: int = 0, interface: int = 2) -> bytes:
    """As linux/if_addr.h has it, with a label of odd length before what matters."""
    raw = ipaddress.ip_address(address).packed
    label = struct.pack("=HH", 9, 3) + b"eth0\0" + b"\0\0\0"
    what = struct.pack("=HH", 4 + len(raw), 1) + raw
    more = struct.pack("=HHI", 8, 8, flags)
    return struct.pack("=BBBBI", 2, 24, flags & 0xFF, scope, interface) + label + what + more


@pytest.mark.parametrize("address", ["198.18.0.1", "fd00:198::1"])
def test_an_address_is_read_as_the_kernel_tells_it(address: str) -> None:
    assert list(read(NEWADDR, body(address))) == [Address(address, 2)]


@pytest.mark.parametrize(
    ("scope", "flags"),
    [(253, 0), (254, 0), (0, 0x40), (0, 0x20), (0, 0x08)],
    ids=["link", "host", "tentative", "deprecated", "duplicate"],
)
def test_what_others_cannot_use_is_none(scope: int, flags: int) -> None:
    assert not list(read(NEWADDR, body("fd00:198::1", scope=scope, flags=flags)))


def test_nobody_is_known_by_an_address_of_the_probes_own_wire() -> None:
    assert not list(read(NEWADDR, body("fd16:9254:7127:1337::7c")))


def test_other_messages_are_about_no_address() -> None:
    assert not list(read(24, body("198.18.0.1")))


def test_without_a_default_route_the_first_interface_counts_and_loopback_last() -> None:
    found = [
        Address("198.51.100.1", 1),
        Address("198.18.0.3", 3),
        Address("fd00:198::3", 3),
        Address("198.18.0.2", 2),
    ]
    assert first_of_each(found) == ("198.18.0.2", "fd00:198::3")
    assert first_of_each(found[:1]) == ("198.51.100.1",)
    assert first_of_each([]) == ()
