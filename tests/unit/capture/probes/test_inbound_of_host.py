"""What the inbound probe of services of the host makes of addresses that cannot be probed."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence

import pytest

from meshd.capture.host.host_service import HostWorkload
from meshd.capture.probes import inbound
from meshd.capture.probes.inbound import Verdict, Way, probe_service
from meshd.capture.probes.outpost import Outpost
from meshd.capture.rules.options import CaptureOptions

WEB = HostWorkload(
    uid="mesh.web",
    cgroup="web",
    cgroup_id=1,
    outbound_port=15001,
    inbound_port=15006,
    ports=(80,),
    options=CaptureOptions(),
)
PAST = Verdict("past the proxy")


class Ready(Outpost):
    """It is as if the wire were there."""

    def __init__(self, lacks: str = "") -> None:
        super().__init__()
        self.lacks = lacks

    def open(self) -> None:
        pass

    def lack(self, version: int) -> str:
        return self.lacks if version == 6 else ""


async def try_only_ipv4(way: Way, *_: object) -> Verdict:
    if way.version == 6:
        raise OSError(errno.EADDRNOTAVAIL, "no such address")
    return PAST


def probed(outpost: Outpost, addresses: Sequence[str]) -> Verdict:
    return asyncio.run(probe_service(outpost, addresses, WEB))


@pytest.fixture(autouse=True)
def trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "_try", try_only_ipv4)


@pytest.mark.parametrize("addresses", [("192.0.2.1", "2001:db8::1"), ("2001:db8::1", "192.0.2.1")])
def test_an_address_that_cannot_be_probed_hides_no_problem(addresses: Sequence[str]) -> None:
    found = probed(Ready(), addresses)
    assert found.problem == PAST.problem
    assert "2001:db8::1 cannot be probed" in found.unseen


def test_an_outpost_from_which_nothing_can_be_sent_is_doubted() -> None:
    outpost = Ready()
    probed(outpost, ["192.0.2.1"])
    assert not outpost.is_doubted
    probed(outpost, ["2001:db8::1"])
    assert outpost.is_doubted


def test_an_outpost_where_ipv6_is_off_is_kept() -> None:
    outpost = Ready("IPv6 is switched off")
    found = probed(outpost, ["192.0.2.1", "2001:db8::1"])
    assert found.problem == PAST.problem
    assert "2001:db8::1 cannot be probed from outside: IPv6 is switched off" in found.unseen
    assert not outpost.is_doubted
