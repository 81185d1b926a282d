"""Units that start processes for others, which the unit's enrollment does not capture."""

from __future__ import annotations

import pytest

from meshd.model.workload import HostService
from meshd.workloads.host import starters
from meshd.workloads.strays import Process, bypasses

OWN = "meshd.slice/meshd-docker.slice"
INIT = Process(1, 0, "systemd", 0, "/init.scope")


@pytest.mark.parametrize(
    ("unit", "cgroup"),
    [
        ("docker.service", "/system.slice/docker-0a1b.scope"),
        ("podman.service", "/machine.slice/libpod-0a1b.scope/container"),
        ("containerd.service", "/kubepods.slice/kubepods-pod1.slice/cri-containerd-0a1b.scope"),
        ("containerd.service", "/system.slice/nerdctl-0a1b.scope"),
        ("crio.service", "/kubepods.slice/kubepods-pod1.slice/crio-0a1b.scope"),
        ("k3s.service", "/kubepods/besteffort/pod1/0a1b"),
        ("systemd-machined.service", "/machine.slice/systemd-nspawn@guest.service/payload"),
        ("ssh.service", "/user.slice/user-1000.slice/session-3.scope"),
        ("cron.service", "/user.slice/user-1000.slice/session-c4.scope"),
    ],
)
def test_what_an_engine_has_started_is_outside_of_its_cgroup(unit: str, cgroup: str) -> None:
    assert unit in starters.remark(unit)
    started = Process(7, 1, "server", 0, cgroup)
    service = HostService(cgroup=OWN, unit=unit, outbound_port=15101, inbound_port=15102)
    told = bypasses({"mesh.engine": service}, {1: INIT, 7: started})
    assert f"7 (server) in {cgroup}" in told["mesh.engine"]


@pytest.mark.parametrize("unit", ["web.service", "dockerized.service", "user.service", ""])
def test_other_units_start_nothing_elsewhere_that_is_known(unit: str) -> None:
    assert starters.remark(unit) == ""
    assert not starters.is_started_by(unit, "/system.slice/docker-0a1b.scope")


def test_a_process_that_others_have_started_is_not_the_units() -> None:
    started = Process(7, 1, "server", 0, "/machine.slice/libpod-0a1b.scope")
    service = HostService(
        cgroup=OWN, unit="docker.service", outbound_port=15101, inbound_port=15102
    )
    assert not bypasses({"mesh.engine": service}, {1: INIT, 7: started})


def test_a_users_own_manager_is_named_when_it_is_enrolled() -> None:
    assert "services of the user" in starters.remark("user@1000.service")
