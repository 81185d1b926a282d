"""At which interface of a workload's namespace the host's packets arrive."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from meshd.capture.probes.reach import Interface, Neighbour, arriving

SAME, OTHER = b"\x02aaaaa", b"\x02bbbbb"
ADDRESS = "198.18.0.2"
WIRE = Neighbour(ADDRESS, interface=40)
BOND = Interface(2, "bond0", SAME, addresses=frozenset({ADDRESS}))
PART = Interface(3, "eth0", SAME, lower=40, master=2)
SPARE = Interface(4, "eth1", SAME, lower=41, master=2)
PLAIN = Interface(5, "eth0", SAME, lower=40)
VLAN = Interface(6, "eth0.7", SAME, lower=5, addresses=frozenset({ADDRESS}))
TWIN = Interface(7, "twin", SAME)
ELSE = Interface(8, "eth9", OTHER, addresses=frozenset({ADDRESS}))


@pytest.mark.parametrize(
    ("there", "other", "names"),
    [
        ([PLAIN], 5, {"eth0"}),
        ([PLAIN, TWIN], 5, {"eth0"}),
        ([PLAIN, VLAN], 5, {"eth0"}),
        ([PLAIN, VLAN], 0, {"eth0.7"}),
        ([BOND, PART, SPARE], 3, {"bond0"}),
        ([BOND, PART, SPARE], 0, {"bond0"}),
        ([PLAIN, TWIN], 0, {"eth0", "twin"}),
        ([TWIN, ELSE], 8, {"twin"}),
        ([ELSE], 8, set[str]()),
    ],
)
def test_of_interfaces_that_share_a_hardware_address_the_one_reached_is_told(
    there: Sequence[Interface], other: int, names: set[str]
) -> None:
    assert arriving(there, SAME, WIRE, other) == names
