"""What gets into the host's rules is checked: who asks for them has fewer privileges."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from meshd.base.errors import InvalidInputError
from meshd.capture.host.hosted import host_workload, without_conflicts
from meshd.capture.host.rules import HostWorkload
from meshd.model.workload import HostService, NamedPort, Placement, Stage, Workload
from meshd.settings import CaptureSettings

HOST = HostService(cgroup="no/such", outbound_port=15101, inbound_port=15102)
WEB = Workload(
    uid="mesh.web",
    name="web",
    namespace="mesh",
    netns="",
    ports=(NamedPort("https", 443), NamedPort("http", 80), NamedPort("again", 80)),
    host=HOST,
)


def made(**changes: Any) -> HostWorkload:
    workload = msgspec.structs.replace(WEB, **changes)
    return host_workload(Placement(workload, Stage.CAPTURED, (443,)), CaptureSettings())


def test_declared_ports_are_captured_but_for_those_that_the_proxy_serves() -> None:
    found = made()
    assert (found.uid, found.cgroup, found.cgroup_id) == ("mesh.web", "no/such", 0)
    assert found.ports == (80,)


@pytest.mark.parametrize(
    "cgroup", ["", "/", "/a", "a/", "a//b", "..", "a/../b", "a/.", 'a"', "a b", "a\nb", "a\\x2db"]
)
def test_a_path_that_is_none_is_refused(cgroup: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a path of a cgroup"):
        made(host=msgspec.structs.replace(HOST, cgroup=cgroup))


@pytest.mark.parametrize("uid", ["", "a b", 'a"', "a\n-A OUTPUT", "a@1"])
def test_a_uid_that_is_none_is_refused(uid: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a uid"):
        made(uid=uid)


@pytest.mark.parametrize("ports", [(0, 15102), (15101, 80), (22, 15102)])
def test_redirecting_to_other_ports_than_those_is_refused(ports: tuple[int, int]) -> None:
    outbound, inbound = ports
    host = msgspec.structs.replace(HOST, outbound_port=outbound, inbound_port=inbound)
    with pytest.raises(InvalidInputError, match="no ports of the host"):
        made(host=host)


@pytest.mark.parametrize("port", [22, 15012, 0, -1, 65536, 15103])
def test_ports_that_are_no_services_are_refused(port: int) -> None:
    with pytest.raises(InvalidInputError, match=str(port)):
        made(ports=(NamedPort("x", port),))


def test_a_port_is_of_the_first_that_declares_it() -> None:
    first = made()
    second = dataclasses.replace(first, uid="mesh.zoo", ports=(80, 81))
    kept, problems = without_conflicts([first, second])
    assert [one.ports for one in kept] == [(80,), (81,)]
    assert problems == {"mesh.zoo": "port 80 is captured for mesh/web already"}
