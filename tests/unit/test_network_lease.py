"""Two checkouts that run their tests at once use networks of their own."""

from __future__ import annotations

import pytest

from tests import network_lease
from tests.network_lease import leased_network

TWO = ("198.18.250.0/27", "198.18.250.32/27")


def test_a_network_belongs_to_one_test_until_that_ends() -> None:
    with leased_network(TWO) as one, leased_network(TWO) as other:
        assert {one, other} == set(TWO)
        with pytest.raises(RuntimeError, match="are in use"), leased_network(TWO):
            pass
    for _ in range(3):
        with leased_network(TWO[:1]) as one:
            assert one == TWO[0]


def test_a_network_to_which_the_host_has_a_route_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    routed = [network_lease.IPv4Network(cidr) for cidr in ("198.18.250.0/26",)]
    monkeypatch.setattr(network_lease, "_routed", lambda: routed)
    with leased_network((*TWO, "198.18.251.0/27")) as one:
        assert one == "198.18.251.0/27"
