"""Restricts the frames of a pod to its own hardware and IP addresses.

Otherwise a process that is root in its pod's namespace could take another pod's address, or the
gateway's, and receive their traffic. Pure functions write text for ``ebtables-restore``; ``write``
hands it over.

ARP and IPv4 are covered, and IPv6 with one exception: ebtables cannot read what a neighbour
advertisement is about. So pods know their gateway's hardware address from the start (see
``network.pod_batch``).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import subprocess
from typing import Final

from meshd.base.errors import SystemRefusedError

_PROGRAM: Final = "ebtables-nft-restore"
_LINK_LOCAL: Final = int(ipaddress.IPv6Address("fe80::"))


@dataclasses.dataclass(frozen=True, slots=True)
class Sender:
    """The pod behind one port of the switch."""

    port: str
    hardware_address: str
    address: str
    address_v6: str


def admitted(sender: Sender) -> str:
    """Return rules that check the frames of a port before the switch learns from them."""
    chain, hardware = sender.port, sender.hardware_address
    return f"""\
*nat
:PREROUTING ACCEPT
:{chain} DROP
-A PREROUTING -i {sender.port} -j {chain}
-A {chain} -s ! {hardware} -j DROP
-A {chain} -p ARP --arp-ip-src {sender.address} --arp-mac-src {hardware} -j ACCEPT
-A {chain} -p IPv4 --ip-src {sender.address} -j ACCEPT
-A {chain} -p IPv6 --ip6-proto ipv6-icmp --ip6-icmp-type router-advertisement -j DROP
-A {chain} -p IPv6 --ip6-proto ipv6-icmp --ip6-icmp-type redirect -j DROP
-A {chain} -p IPv6 --ip6-src {sender.address_v6} -j ACCEPT
-A {chain} -p IPv6 --ip6-src {link_local(hardware)} -j ACCEPT
-A {chain} -p IPv6 --ip6-src :: --ip6-proto ipv6-icmp -j ACCEPT
COMMIT
"""


def removed(port: str) -> str:
    """Return rules that undo ``admitted``."""
    return f"*nat\n-D PREROUTING -i {port} -j {port}\n-F {port}\n-X {port}\nCOMMIT\n"


def link_local(hardware_address: str) -> str:
    """Return the address that the kernel derives from a hardware address (RFC 4291, appendix A)."""
    octets = bytes.fromhex(hardware_address.replace(":", ""))
    identifier = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return str(ipaddress.IPv6Address(_LINK_LOCAL | int.from_bytes(identifier)))


def write(text: str) -> None:
    """Write rules in this thread's namespace. Raises SystemRefusedError."""
    try:
        done = subprocess.run(
            [_PROGRAM, "--noflush"], input=text, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise SystemRefusedError(f"there is no program {_PROGRAM}; install iptables") from None
    if done.returncode != 0:
        reason = " ".join(done.stderr.split())
        raise SystemRefusedError(
            f"pods cannot be kept from using each other's addresses: {_PROGRAM} says: {reason}"
        )
