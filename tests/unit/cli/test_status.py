"""status: every workload's way into the mesh, and a status for scripts when one is not there."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest

from meshd import wire

WELL = wire.WorkloadStatus(
    workload="reviews-v1",
    namespace="default",
    service_account="reviews",
    node="one",
    address="198.18.0.7",
    netns="/run/netns/reviews-v1",
    proxy="proxy-0",
    captured=True,
    certificate_expires="2030-01-01T00:00:00Z",
    synced=True,
    proven=True,
    problem="",
)
UNPROVEN = msgspec.structs.replace(
    WELL, workload="ratings", namespace="shop", proven=False, problem="the probe was refused"
)
OUTSIDE = msgspec.structs.replace(
    WELL,
    workload="legacy",
    captured=False,
    certificate_expires=None,
    synced=False,
    proven=False,
    enrolled=False,
    problem="not in the mesh: its label says so",
)
PROXY = wire.ProxyStatus("proxy-0", connected=True, synced=True)
ROLE = wire.RoleStatus("capture", 42, "running", 1, time.time() - 7300)


def answer(daemon: Any, *rows: wire.WorkloadStatus, **more: Any) -> None:
    daemon.says(wire.Statuses(rows, **more))


def test_the_pools_capacity_is_shown(daemon: Any, meshctl: Any) -> None:
    answer(daemon, WELL, proxies=(PROXY,), capacity="2 proxies with 1 worker thread each")
    result = meshctl("status")
    assert result.out.endswith("\n\ncapacity: 2 proxies with 1 worker thread each\n")


def test_all_well_is_status_0(daemon: Any, meshctl: Any) -> None:
    answer(daemon, WELL, proxies=(PROXY,), roles=(ROLE,))
    result = meshctl("status")
    assert (result.code, result.err) == (0, "")
    tables = [table.splitlines() for table in result.out.split("\n\n")]
    assert tables[0][1].split() == [
        *("default", "reviews-v1", "198.18.0.7", "reviews"),
        *("yes", "2030-01-01T00:00:00Z", "yes", "yes", "-"),
    ]
    assert tables[1][1].split() == ["proxy-0", "yes", "yes", "-"]
    assert tables[2][1].split() == ["capture", "42", "running", "1", "2h", "-"]


def test_one_that_is_not_proven_is_status_1_and_named(daemon: Any, meshctl: Any) -> None:
    answer(daemon, WELL, UNPROVEN)
    result = meshctl("status")
    assert result.code == 1
    assert result.err == "workload shop/ratings: not proven: the probe was refused\n"


def test_one_that_is_meant_to_be_outside_is_no_failure(daemon: Any, meshctl: Any) -> None:
    answer(daemon, WELL, OUTSIDE)
    result = meshctl("status")
    assert (result.code, result.err) == (0, "")
    assert "not in the mesh: its label says so" in result.out


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        (wire.ProxyStatus("proxy-1", False, False), "proxy proxy-1: not connected"),
        (wire.ProxyStatus("proxy-1", True, False), "proxy proxy-1: lacks the newest"),
        (wire.ProxyStatus("proxy-1", True, True, ("bad route",)), "proxy-1: refused the newest"),
    ],
)
def test_a_proxy_that_is_not_well_is_status_1(
    daemon: Any, meshctl: Any, proxy: wire.ProxyStatus, said: str
) -> None:
    answer(daemon, WELL, proxies=(PROXY, proxy))
    result = meshctl("status")
    assert result.code == 1
    assert said in result.err


def test_a_role_that_does_not_run_is_status_1(daemon: Any, meshctl: Any) -> None:
    broken = wire.RoleStatus("identity", 0, "waiting", 3, 0.0, "no key")
    answer(daemon, WELL, roles=(ROLE, broken))
    result = meshctl("status")
    assert (result.code, result.err) == (1, "role identity: waiting: no key\n")


def test_json_is_the_list_of_workloads(daemon: Any, meshctl: Any) -> None:
    answer(daemon, WELL, UNPROVEN, proxies=(PROXY,))
    result = meshctl("status", "-o", "json")
    assert result.code == 1
    assert json.loads(result.out) == [msgspec.to_builtins(WELL), msgspec.to_builtins(UNPROVEN)]


def test_one_namespace_is_judged_alone(daemon: Any, meshctl: Any) -> None:
    answer(daemon, WELL, UNPROVEN)
    assert meshctl("status", "-n", "default", "-o", "name").lines == ["default/reviews-v1"]
    assert meshctl("status", "-n", "default").code == 0
    assert meshctl("status", "-n", "shop").code == 1


def test_status_says_that_no_workloads_are_registered(daemon: Any, meshctl: Any) -> None:
    answer(daemon)
    assert meshctl("status").out == "no workloads are registered\n"


def test_wide_shows_where_they_run(daemon: Any, meshctl: Any) -> None:
    answer(daemon, WELL)
    assert "/run/netns/reviews-v1" in meshctl("status", "-o", "wide").out


def test_a_proof_of_one_direction_only_is_shown_with_its_reason(daemon: Any, meshctl: Any) -> None:
    answer(daemon, msgspec.structs.replace(WELL, unseen="no wire leads there"))
    result = meshctl("status", "-o", "wide")
    assert result.code == 0
    row = result.out.splitlines()[1]
    assert " outbound " in row
    assert "no wire leads there" in row


def test_an_enrollment_that_is_not_finished_is_named_with_the_reason(
    daemon: Any, meshctl: Any
) -> None:
    begun = wire.EnrollmentStatus(
        what="enrollment of web.service",
        uid="shop.web",
        unit="web.service",
        doing="register the workload",
        problem="/var/lib/meshd: No space left on device",
        since=1.0,
    )
    answer(daemon, WELL, enrollments=(begun,))
    result = meshctl("status")
    assert (result.code, result.err) == (
        1,
        "enrollment of web.service is not finished (register the workload): /var/lib/meshd: No"
        " space left on device\n",
    )
