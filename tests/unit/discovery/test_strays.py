"""Processes of an enrolled unit that are captured no more, because they left its cgroup."""

from __future__ import annotations

import os

import pytest

from meshd.discovery.strays import Process, remark, running, strays

SLICE = "meshd_services.slice/meshd_services-web.slice"
MAIN = Process(10, 1, "web", 990, f"/{SLICE}/web.service")
INIT = Process(1, 0, "systemd", 0, "/init.scope")
SESSION = "/user.slice/user-0.slice/session-4.scope"


def found(one: Process, user: int = 990) -> tuple[Process, ...]:
    return strays({other.pid: other for other in (INIT, MAIN, one)}, SLICE, user)


def process(cgroup: str, *, parent: int = 1, user: int = 990) -> Process:
    return Process(20, parent, "curl", user, cgroup)


def test_what_is_in_the_slice_is_captured() -> None:
    assert not found(process(f"/{SLICE}/web.service/inner", parent=10))


@pytest.mark.parametrize("user", [0, 990])
@pytest.mark.parametrize("cgroup", [SESSION, f"/{SLICE}2/x", "/system.slice/else.service"])
def test_what_the_unit_began_elsewhere_is_outside_whoever_it_runs_as(
    cgroup: str, user: int
) -> None:
    assert found(process(cgroup, parent=10, user=user), user=0)


@pytest.mark.parametrize(
    "cgroup",
    [SESSION, "/system.slice/run-u7.service", "/system.slice/cron.service"],
)
def test_what_is_begun_elsewhere_for_the_units_user_is_outside(cgroup: str) -> None:
    assert found(process(cgroup))
    assert not found(process(cgroup, user=33))
    assert not found(process(cgroup, user=0), user=0)


def test_another_service_of_the_same_user_is_no_part_of_the_unit() -> None:
    assert not found(process("/system.slice/fpm.service"))


def test_the_first_is_named_and_the_others_are_counted() -> None:
    one = process(SESSION)
    assert remark((), "web.service") == ""
    told = "web.service has processes outside of its cgroup, which bypass the mesh: 20 (curl) in"
    assert remark((one,), "web.service") == f"{told} {SESSION}"
    assert remark((one, one, one), "web.service") == f"{told} {SESSION} and 2 more"


def test_those_of_this_host_are_found() -> None:
    own = running()[os.getpid()]
    assert (own.parent, own.user) == (os.getppid(), os.geteuid())
