"""What the kernel tells of a socket, as bytes."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys

import pytest

from meshd.capture.pods.sockets import of_message
from meshd.model.open_connection import OpenConnection


def told(client: str, server: str, mark: int | None = 0x53A, *, six: bool = False) -> bytes:
    def raw(text: str) -> bytes:
        return ipaddress.ip_address(text).packed.ljust(16, b"\0")

    family = socket.AF_INET6 if six else socket.AF_INET
    ends = (
        struct.pack(">HH", 40000, 9000)
        + raw(client)
        + raw(server)
        + b"\1\2\3\4"
        + b"cookie..\0"[:8]
    )
    marked = b"" if mark is None else struct.pack("=HH", 8, 15) + mark.to_bytes(4, sys.byteorder)
    other = struct.pack("=HHI", 8, 8, 3)  # INET_DIAG_SHUTDOWN, padded
    return bytes([family, 1, 0, 0]) + ends + bytes(20) + other + marked


@pytest.mark.parametrize(
    ("client", "server", "six"),
    [("198.18.0.1", "198.18.0.2", False), ("fd00:198::1", "fd00:198::2", True)],
)
def test_what_a_proxy_has_opened_is_told_by_both_ends(client: str, server: str, six: bool) -> None:
    found = of_message(told(client, server, six=six))
    assert found is not None
    assert found.connection == OpenConnection(client, 40000, server, 9000)
    assert found.raw.endswith(b"cookie..")


def test_an_address_of_ipv4_on_a_socket_of_ipv6_is_one_of_ipv4() -> None:
    found = of_message(told("::ffff:198.18.0.1", "::ffff:198.18.0.2", six=True))
    assert found is not None
    assert found.connection == OpenConnection("198.18.0.1", 40000, "198.18.0.2", 9000)


@pytest.mark.parametrize("mark", [None, 0, 0x539, 0x53A00])
def test_nobody_elses_sockets_are_told(mark: int | None) -> None:
    assert of_message(told("198.18.0.1", "198.18.0.2", mark)) is None


def test_half_a_message_tells_nothing() -> None:
    assert of_message(told("198.18.0.1", "198.18.0.2")[:60]) is None
