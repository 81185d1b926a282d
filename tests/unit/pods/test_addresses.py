"""Addresses, users and the network's commands."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import InvalidInputError
from meshd.pods.addresses import FIRST_POD, Subnet, allocate
from meshd.pods.network import host_link, pod_port, switch_batch

SUBNET = Subnet.parse("198.18.64.0/20")
UIDS = st.lists(st.text("abc.-", min_size=1, max_size=6), unique=True, max_size=30)


@given(UIDS, UIDS)
def test_pods_keep_their_numbers_and_nobody_shares_one(before: list[str], now: list[str]) -> None:
    known = allocate(SUBNET, before, {})
    numbers = allocate(SUBNET, now, known)
    assert set(numbers) == set(now)
    everyone = known | numbers
    assert len(set(everyone.values())) == len(everyone)
    assert all(numbers[uid] == known[uid] for uid in set(now) & set(known))
    assert all(number >= FIRST_POD for number in numbers.values())


@given(st.integers(1, 4094))
def test_both_addresses_lie_in_the_testbeds_networks(number: int) -> None:
    assert ipaddress.ip_address(SUBNET.address(number)) in SUBNET.network
    network = ipaddress.IPv6Network(f"{SUBNET.address_v6(0)}/{SUBNET.prefix_v6}")
    assert ipaddress.ip_address(SUBNET.address_v6(number)) in network
    assert network.subnet_of(ipaddress.IPv6Network("fd00:198::/32"))
    assert SUBNET.number(SUBNET.address(number)) == number
    assert SUBNET.user(number) > 200_000


@pytest.mark.parametrize("text", ["198.18.0.0/8", "198.18.0.1/24", "198.18.0.0/30", "x", "::/64"])
def test_unusable_networks_for_pods_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Subnet.parse(text)


@given(st.text(min_size=1, max_size=300))
def test_names_of_links_fit_the_kernel(uid: str) -> None:
    assert len(pod_port(uid)) <= 15


def test_two_testbeds_have_links_of_different_names(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    assert host_link(one) != host_link(two)


def test_the_switch_has_the_gateways_and_the_probes_addresses() -> None:
    batch = switch_batch(SUBNET, "mtb-x", 7)
    assert "address add 198.18.64.1/20 dev br0\n" in batch
    assert "peer name mtb-x netns /proc/self/fd/7\n" in batch
