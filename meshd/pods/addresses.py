"""The addresses of pods. Pure.

One number decides a pod's IPv4 address, its IPv6 address and the uid of its processes.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from meshd.base.errors import InvalidInputError

DEFAULT_CIDR: Final = "198.18.0.0/16"
DNS_ADDRESS: Final = "198.19.0.10"
"""Of the cluster's DNS, for pods' resolv.conf. Nothing answers there: meshd captures DNS."""
_V6_BASE: Final = int(ipaddress.IPv6Address("fd00:198::"))
_FIRST_USER: Final = 200_000


@dataclasses.dataclass(frozen=True, slots=True)
class Subnet:
    """The addresses of one testbed: the first is the switch's, the second the host's."""

    network: ipaddress.IPv4Network

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """Raises InvalidInputError."""
        try:
            network = ipaddress.IPv4Network(text)
        except ValueError as error:
            raise InvalidInputError(f"{text!r} is not an IPv4 network: {error}") from None
        if not 16 <= network.prefixlen <= 28:
            raise InvalidInputError(f"{text}: a testbed's network has a prefix of 16 to 28 bits")
        return cls(network)

    @property
    def prefix_v6(self) -> int:
        return 96 + self.network.prefixlen

    def address(self, number: int) -> str:
        return str(self.network[number])

    def address_v6(self, number: int) -> str:
        """Return an address with the IPv4 address in its last 32 bits: unique wherever that one
        is."""
        return str(ipaddress.IPv6Address(_V6_BASE + int(self.network[number])))

    def hardware_address(self, number: int) -> str:
        """Return a locally administered address derived from the IPv4 address.

        A pod that takes another's address is reached at once, whatever its neighbours remember.
        """
        octets = (2, 0x42, *self.network[number].packed)
        return ":".join(f"{octet:02x}" for octet in octets)

    def user(self, number: int) -> int:
        """Return a uid that nothing else has, so that pods cannot reach each other's processes."""
        return _FIRST_USER + (int(self.network[number]) & 0xFFFF)

    def number(self, address: str) -> int:
        return int(ipaddress.IPv4Address(address)) - int(self.network.network_address)


SWITCH: Final = 1
HOST: Final = 2
FIRST_POD: Final = 10


def allocate(
    subnet: Subnet, uids: Iterable[str], known: Mapping[str, int], taken: Collection[int] = ()
) -> dict[str, int]:
    """Return a number for each pod: the one it has, or the lowest that is free.

    ``taken`` are those of pods that may still run. Raises InvalidInputError if none is left.
    """
    wanted = list(uids)
    used = {*taken, *known.values()}
    free = (
        number
        for number in range(FIRST_POD, subnet.network.num_addresses - 1)
        if number not in used
    )
    numbers: dict[str, int] = {}
    for uid in wanted:
        number = known[uid] if uid in known else next(free, None)
        if number is None:
            raise InvalidInputError(f"no address is left in {subnet.network}; take a wider --cidr")
        numbers[uid] = number
    return numbers
