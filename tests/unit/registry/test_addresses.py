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
    given_ = list(allocation.addresses.values())
    assert len(set(given_)) == len(given_) == len(hosts)
    assert str(network[0]) not in given_
    assert str(network[-1]) not in given_
    assert all(ipaddress.ip_address(address) in network for address in given_)


def test_an_address_follows_from_the_name_alone() -> None:
    alone = allocate({}, ["a.svc"], CIDR).addresses["a.svc"]
    assert allocate({}, ["a.svc", "b.svc", "c.svc"], CIDR).addresses["a.svc"] == alone
    assert allocate({"gone.svc": "198.19.0.9"}, ["a.svc"], CIDR).addresses == {"a.svc": alone}


def test_an_address_that_a_service_declares_is_given_to_nobody_else() -> None:
    mine = allocate({}, ["a.svc"], CIDR).addresses["a.svc"]
    moved = allocate({"a.svc": mine}, ["a.svc"], CIDR, taken=[mine]).addresses["a.svc"]
    assert moved != mine


def test_hosts_that_find_no_address_are_named_and_the_others_keep_theirs() -> None:
    hosts = [f"{letter}.svc" for letter in "abcdef"]
    allocation = allocate({}, hosts, "198.19.0.0/30")
    assert sorted(allocation.addresses.values()) == ["198.19.0.1", "198.19.0.2"]
    assert len(allocation.left_out) == 4
    again = allocate(allocation.addresses, hosts, "198.19.0.0/30")
    assert again == allocation


def test_an_address_of_another_network_is_replaced() -> None:
    allocation = allocate({"a.svc": "198.19.9.9"}, ["a.svc"], CIDR)
    assert ipaddress.ip_address(allocation.addresses["a.svc"]) in ipaddress.ip_network(CIDR)


@pytest.mark.parametrize("damaged", ["", "x", "198.19.0.0", "198.19.0.255", "fd00:198::1"])
def test_a_remembered_address_that_makes_no_sense_is_replaced(damaged: str) -> None:
    assert allocate({"a.svc": damaged}, ["a.svc"], CIDR).addresses["a.svc"] != damaged


def test_ipv6_networks_do_as_well() -> None:
    allocation = allocate({}, ["a.svc"], "fd00:198::/64")
    assert ipaddress.ip_address(allocation.addresses["a.svc"]) in ipaddress.ip_network(
        "fd00:198::/64"
    )


def test_two_remembered_hosts_with_one_address_are_parted() -> None:
    same = {"a.svc": "198.19.0.5", "b.svc": "198.19.0.5"}
    given_ = allocate(same, ["a.svc", "b.svc"], CIDR).addresses
    assert given_["a.svc"] == "198.19.0.5"
    assert given_["b.svc"] != "198.19.0.5"
