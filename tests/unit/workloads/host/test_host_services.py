from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from meshd.base.errors import InvalidInputError, NotReadyError, SystemRefusedError
from meshd.model.interception import HOST_PORTS
from meshd.model.workload import HostService, NamedPort, Workload
from meshd.workloads import record
from meshd.workloads.host import host_services
from meshd.workloads.host.host_services import refuse_taken_ports, with_ports


def service(name: str, cgroup: str = "") -> Workload:
    return Workload(
        uid=f"mesh.{name}",
        name=name,
        namespace="mesh",
        netns="",
        host=HostService(cgroup=cgroup or f"s/{name}"),
    )


def pod(name: str) -> Workload:
    return Workload(uid=f"mesh.{name}", name=name, namespace="mesh", netns=f"/n/{name}")


def ports(workload: Workload) -> tuple[int, int]:
    assert workload.host
    return workload.host.outbound_port, workload.host.inbound_port


def test_each_service_gets_two_ports_of_its_own() -> None:
    first, second, other = with_ports([service("a"), service("b"), pod("c")], {})
    assert (ports(first), ports(second)) == ((15101, 15102), (15103, 15104))
    assert other == pod("c")


def test_a_known_service_keeps_its_ports_and_a_new_one_fills_gaps() -> None:
    known = {one.uid: one for one in with_ports([service("a"), service("b")], {})}
    (again,) = with_ports([service("b", cgroup="elsewhere")], known)
    assert ports(again) == (15103, 15104)
    assert again.host
    assert again.host.cgroup == "elsewhere"
    del known["mesh.a"]
    (new,) = with_ports([service("c")], known)
    assert ports(new) == (15101, 15102)


def test_when_all_are_taken_it_says_so() -> None:
    many = [service(f"s{index}") for index in range(len(HOST_PORTS) // 2)]
    known = {one.uid: one for one in with_ports(many, {})}
    assert len({port for one in known.values() for port in ports(one)}) == 2 * len(many)
    with pytest.raises(NotReadyError, match=r"mesh/late cannot be enrolled"):
        with_ports([service("late")], known)


def test_the_record_is_of_services_only_and_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / host_services.RECORD
    assert record.load(path).record.registered == {}
    host_services.save(path, {"mesh.c": pod("c")}, {})
    assert not path.exists()
    placed = {one.uid: one for one in with_ports([service("a")], {})}
    host_services.save(path, {"mesh.c": pod("c"), **placed}, {"mesh.c": pod("c")})
    assert record.load(path).record.registered == placed
    host_services.save(path, {}, placed)
    assert record.load(path).record.registered == {}
    assert msgspec.json.decode(path.read_bytes())["registered"] == {}


def test_changes_of_pods_need_no_disk(tmp_path: Path) -> None:
    (tmp_path / "no directory").touch()
    path = tmp_path / "no directory" / host_services.RECORD
    placed = {one.uid: one for one in with_ports([service("a")], {})}
    host_services.save(path, placed | {"mesh.c": pod("c")}, placed)
    with pytest.raises(SystemRefusedError):
        host_services.save(path, {}, placed)


def serving(name: str, port: int, exclude: str = "") -> Workload:
    annotations = {"traffic.sidecar.istio.io/excludeInboundPorts": exclude} if exclude else {}
    return msgspec.structs.replace(
        service(name), ports=(NamedPort("http", port),), annotations=annotations
    )


def test_a_port_of_another_service_is_refused_at_once_and_the_other_is_named() -> None:
    """As when a unit was renamed and its old name is still enrolled."""
    old = serving("old", 80)
    known = {old.uid: old}
    with pytest.raises(InvalidInputError, match="port 80 is captured for mesh/old already") as told:
        refuse_taken_ports([serving("new", 80)], known.values())
    assert "meshctl unenroll --cgroup s/old" in str(told.value)
    for fine in (old, serving("new", 81), serving("new", 80, "80, 81"), pod("new")):
        refuse_taken_ports([fine], known.values())
