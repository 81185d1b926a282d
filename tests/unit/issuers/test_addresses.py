"""At which addresses issuers are asked for their keys."""

from __future__ import annotations

import pytest

from meshd.issuers.addresses import refusal
from meshd.model.issuer import Reach

OWN = ("198.18.0.5", "2001:db8::5")


@pytest.mark.parametrize(
    "address",
    ["198.18.0.6", "10.0.0.1", "8.8.8.8", "2001:4860::1", "fd00:1::1", "64:ff9b::808:808"],
)
def test_other_machines_are_asked(address: str) -> None:
    assert refusal(address, Reach(), OWN) == ""


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fd00:ec2::254", "credentials"),
        ("fd20:ce::254", "credentials"),
        ("100.100.100.200", "credentials"),
        ("168.63.129.16", "credentials"),
        ("192.0.0.192", "credentials"),
        ("224.0.0.1", "no address of one machine"),
        ("255.255.255.255", "no address of one machine"),
        ("ff02::1", "no address of one machine"),
        ("198.18.0.5", "own"),
        ("2001:db8::5", "own"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::127.0.0.1", ""),
        ("::ffff:198.18.0.5", "own"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::a9fe:a9fe", "link-local"),
        ("2002:7f00:1::", "loopback"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("example.test", "no address"),
    ],
)
def test_what_only_this_machine_reaches_is_not_asked(address: str, why: str) -> None:
    found = refusal(address, Reach(), OWN)
    assert found
    assert why in found


def test_settings_allow_and_refuse_networks_and_what_is_refused_wins() -> None:
    reach = Reach(allowed=("127.0.0.0/8", "198.18.0.5"), refused=("127.0.0.2/32", "10.0.0.0/8"))
    found = {
        address: bool(refusal(address, reach, OWN))
        for address in ("127.0.0.1", "127.0.0.2", "198.18.0.5", "10.1.1.1", "8.8.8.8", "::1")
    }
    assert found == {
        "127.0.0.1": False,
        "127.0.0.2": True,
        "198.18.0.5": False,
        "10.1.1.1": True,
        "8.8.8.8": False,
        "::1": True,
    }
