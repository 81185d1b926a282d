"""What was asked for is kept apart from what was seen."""

from __future__ import annotations

import msgspec
import pytest

from meshd.model.workload import HostService, Workload
from meshd.workloads.addressing import asked_only, doubt, reached

OWN = ("198.18.0.7", "fd00:198::7")
OLD = ("198.18.0.1",)


def service(addresses: tuple[str, ...] = (), **host: bool | None) -> Workload:
    return Workload(
        uid="mesh.web",
        name="web",
        namespace="mesh",
        netns="",
        addresses=addresses,
        host=HostService(cgroup="s/web", unit="web.service", **host),  # pyright: ignore[reportArgumentType]
    )


POD = msgspec.structs.replace(service(), host=None, netns="/run/netns/web")


def test_what_nobody_asked_for_is_what_is_there_now() -> None:
    assert reached(service(address_asked=False), OWN, OLD).addresses == OWN
    assert reached(POD, OWN, OLD).addresses == OLD


def test_what_was_asked_for_stays_so() -> None:
    asked = service(OLD, address_asked=True)
    assert reached(asked, OWN, ()) == asked
    assert asked_only({"mesh.web": asked}, OLD) == {"mesh.web": asked}


def test_of_an_older_record_what_is_the_hosts_own_was_only_seen() -> None:
    known = {"mesh.web": service(("fd00:198::7",))}
    (found,) = asked_only(known, OWN).values()
    assert found == service(address_asked=False)
    assert asked_only(known, OLD) == known
    assert asked_only(known, ()) == known


@pytest.mark.parametrize(
    ("workload", "told"),
    [
        (service(OLD, declared=True), "WorkloadEntry mesh/web: its address 198.18.0.1 is none of"),
        (service(OLD), "an older meshd recorded it; unless it was asked for, unenroll web.service"),
        (service(OLD, address_asked=True), ""),  # perhaps it is behind a NAT
        (service(OWN, declared=True), ""),
        (service(address_asked=False), ""),
        (POD, ""),
    ],
)
def test_an_address_that_others_may_not_reach_is_doubted(workload: Workload, told: str) -> None:
    assert told in doubt(workload, OWN)
    assert bool(told) == bool(doubt(workload, OWN))
    assert not doubt(workload, ())
