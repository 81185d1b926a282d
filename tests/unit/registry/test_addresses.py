from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.registry.addresses import allocate

CIDR = "198.19.0.0/24"
HOSTS = st.sets(st.from_regex(r"[a-z]{1,3}\.svc", fullmatch=True), max_size=12)


@given(HOSTS, HOSTS)
def test_an_address_stays_whatever_comes_and_goes(first: set[str], second: set[str]) -> None:
    before = allocate({}, first, CIDR).addresses
    after = allocate(before, first | second, CIDR).addresses
    assert all(after[host] == address for host, address in before.items())
    fewer = allocate(after, second, CIDR).addresses
    assert fewer == {host: after[host] for host in second}


@given(HOSTS)
def test_addresses_are_distinct_and_never_the_network_s_own(hosts: set[str]) -> None:
    network = ipaddress.ip_network("198.19.0.0/28")
    allocation = allocate({}, hosts, str(network))
    given_ = [address for (address,) in allocation.addresses.values()]
    assert len(set(given_)) == len(given_) == len(hosts)
    assert str(network[0]) not in given_
    assert str(network[-1]) not in given_
    assert all(ipaddress.ip_address(address) in network for address in given_)


def test_an_address_follows_from_the_name_alone() -> None:
    alone = allocate({}, ["a.svc"], CIDR).addresses["a.svc"]
    assert allocate({}, ["a.svc", "b.svc", "c.svc"], CIDR).addresses["a.svc"] == alone
    assert allocate({"gone.svc": ("198.19.0.9",)}, ["a.svc"], CIDR).addresses == {"a.svc": alone}


def test_an_address_that_a_service_declares_is_given_to_nobody_else() -> None:
    mine = allocate({}, ["a.svc"], CIDR).addresses["a.svc"]
    moved = allocate({"a.svc": mine}, ["a.svc"], CIDR, taken=mine).addresses["a.svc"]
    assert moved != mine


@pytest.mark.parametrize(
    "declared",
    [
        "fd00:198::482",
        "FD00:198::482",
        "fd00:198:0:0::482",
        "fd00:0198:0000:0000:0000:0000:0000:0482",
        "fd00:198::482/128",
    ],
)
def test_an_address_is_declared_in_whatever_way_it_is_written(declared: str) -> None:
    before = {"a.svc": ("fd00:198::482",)}
    after = allocate(before, ["a.svc"], "fd00:198::/112", taken={declared}).addresses
    assert after["a.svc"] != before["a.svc"]


def test_hosts_that_find_no_address_are_named_and_the_others_keep_theirs() -> None:
    hosts = [f"{letter}.svc" for letter in "abcdef"]
    allocation = allocate({}, hosts, "198.19.0.0/30")
    assert sorted(allocation.addresses.values()) == [("198.19.0.1",), ("198.19.0.2",)]
    assert len(allocation.left_out) == 4
    again = allocate(allocation.addresses, hosts, "198.19.0.0/30")
    assert again == allocation


def test_an_address_of_another_network_is_replaced() -> None:
    allocation = allocate({"a.svc": ("198.19.9.9",)}, ["a.svc"], CIDR)
    assert ipaddress.ip_address(allocation.addresses["a.svc"][0]) in ipaddress.ip_network(CIDR)


@pytest.mark.parametrize("damaged", ["", "x", "198.19.0.0", "198.19.0.255", "fd00:198::1"])
def test_a_remembered_address_that_makes_no_sense_is_replaced(damaged: str) -> None:
    assert allocate({"a.svc": (damaged,)}, ["a.svc"], CIDR).addresses["a.svc"] != (damaged,)


def test_ipv6_networks_do_as_well() -> None:
    allocation = allocate({}, ["a.svc"], "fd00:198::/64")
    assert ipaddress.ip_address(allocation.addresses["a.svc"][0]) in ipaddress.ip_network(
        "fd00:198::/64"
    )


def test_two_remembered_hosts_with_one_address_are_parted() -> None:
    same = {"a.svc": ("198.19.0.5",), "b.svc": ("198.19.0.5",)}
    given_ = allocate(same, ["a.svc", "b.svc"], CIDR).addresses
    assert given_["a.svc"] == ("198.19.0.5",)
    assert given_["b.svc"] != ("198.19.0.5",)


BOTH = f"{CIDR},fd00:198:1::/64"


@given(HOSTS, HOSTS)
def test_each_host_has_an_address_of_each_family(first: set[str], second: set[str]) -> None:
    before = allocate({}, first, BOTH).addresses
    after = allocate(before, first | second, BOTH).addresses
    assert all(after[host] == given_ for host, given_ in before.items())
    for four, six in after.values():
        assert ipaddress.ip_address(four) in ipaddress.ip_network(CIDR)
        assert ipaddress.ip_address(six) in ipaddress.ip_network("fd00:198:1::/64")
    assert len({each for those in after.values() for each in those}) == 2 * len(after)


def test_a_second_network_leaves_the_addresses_of_the_first() -> None:
    before = allocate({}, ["a.svc", "b.svc"], "198.19.0.0/30", taken=["198.19.0.1"]).addresses
    after = allocate(before, ["a.svc", "b.svc"], "198.19.0.0/30,fd00:198:1::/64")
    assert {host: those[0] for host, those in after.addresses.items() if host in before} == {
        host: those[0] for host, those in before.items()
    }
    assert allocate(after.addresses, before, "198.19.0.0/30").addresses == before


def test_a_host_that_one_network_has_no_room_for_has_an_address_of_the_other() -> None:
    allocation = allocate(
        {}, [f"{letter}.svc" for letter in "abc"], "198.19.0.0/30,fd00:198:1::/64"
    )
    assert sorted(map(len, allocation.addresses.values())) == [1, 2, 2]
    assert allocation.left_out == tuple(
        host for host, those in allocation.addresses.items() if len(those) == 1
    )


@pytest.mark.parametrize(
    "text", ["198.19.0.0/24,", "198.19.0.0/24,198.18.0.0/24", "a", "198.19.0.1/24"]
)
def test_invalid_networks_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits"):
        allocate({}, ["a.svc"], text)
