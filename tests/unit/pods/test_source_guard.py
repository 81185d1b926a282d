from __future__ import annotations

from meshd.pods.source_guard import Sender, admitted, link_local, removed

POD = Sender("pweb", "02:42:c6:12:40:0a", "198.18.64.10", "fd00:198::c612:400a")


def test_a_port_accepts_its_own_addresses_and_drops_the_rest() -> None:
    accepted = [line for line in admitted(POD).splitlines() if line.endswith("ACCEPT")]
    assert all(
        any(own in line for own in (POD.address, POD.address_v6, "fe80::42:c6ff:fe12:400a", " :: "))
        for line in accepted[1:]
    )
    assert ":pweb DROP" in admitted(POD)


def test_removal_names_what_was_added() -> None:
    assert "-A PREROUTING -i pweb -j pweb" in admitted(POD)
    assert "-D PREROUTING -i pweb -j pweb" in removed("pweb")


def test_the_link_local_address_is_the_kernels() -> None:
    assert link_local("02:42:c6:12:40:0a") == "fe80::42:c6ff:fe12:400a"
