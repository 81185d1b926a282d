"""Processes of an enrolled unit that are captured no more, because they left its cgroup."""

from __future__ import annotations

import dataclasses
import os

import pytest

from meshd.model.workload import HostService
from meshd.workloads.strays import Process, bypasses, remark, running, strays

SLICE = "meshd_services.slice/meshd_services-web.slice"
MAIN = Process(10, 1, "web", 990, f"/{SLICE}/web.service")
INIT = Process(1, 0, "systemd", 0, "/init.scope")
SESSION = "/user.slice/user-0.slice/session-4.scope"


def found(one: Process, user: int = 990) -> tuple[Process, ...]:
    return strays({other.pid: other for other in (INIT, MAIN, one)}, SLICE, user)


def process(cgroup: str, *, parent: int = 1, user: int = 990) -> Process:
    return Process(20, parent, "curl", user, cgroup)


def test_processes_in_the_units_slice_are_captured() -> None:
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
def test_processes_of_the_units_user_in_other_cgroups_are_outside(cgroup: str) -> None:
    assert found(process(cgroup))
    assert not found(process(cgroup, user=33))
    assert not found(process(cgroup, user=0), user=0)


def test_another_service_of_the_same_user_is_no_part_of_the_unit() -> None:
    assert not found(process("/system.slice/fpm.service"))


def test_a_transient_unit_of_the_units_user_is_outside_whatever_its_name() -> None:
    one = process("/system.slice/batch.service")
    assert not found(one)
    assert found(dataclasses.replace(one, transient=True))


def services(*cgroups: str) -> dict[str, HostService]:
    return {f"mesh.{cgroup}": HostService(cgroup=cgroup, unit="web.service") for cgroup in cgroups}


def test_a_service_that_runs_as_one_user_is_told_what_that_user_runs_elsewhere() -> None:
    session = process(SESSION)
    there = {one.pid: one for one in (INIT, MAIN, session)}
    (told,) = bypasses(services(SLICE), there).values()
    assert "20 (curl)" in told
    other = dataclasses.replace(MAIN, pid=11, user=991)
    assert not bypasses(services(SLICE), there | {11: other}), "nobody knows for whom it is"


def test_what_another_enrolled_service_has_is_captured_there() -> None:
    child = process("/other.slice/x", parent=10)
    there = {one.pid: one for one in (INIT, MAIN, child)}
    assert bypasses(services(SLICE), there)
    assert not bypasses(services(SLICE, "other.slice"), there)
    named = {"mesh.x": HostService(cgroup=SLICE)}
    assert next(iter(bypasses(named, there).values())).startswith(f"cgroup {SLICE} has processes")


def test_the_first_is_named_and_the_others_are_counted() -> None:
    one = process(SESSION)
    assert remark((), "web.service") == ""
    told = "web.service has processes outside its cgroup, which bypass the mesh: 20 (curl) in"
    assert remark((one,), "web.service") == f"{told} {SESSION}"
    assert remark((one, one, one), "web.service") == f"{told} {SESSION} and 2 more"


def test_those_of_this_host_are_found() -> None:
    own = running()[os.getpid()]
    assert (own.parent, own.user) == (os.getppid(), os.geteuid())


def test_nobody_is_the_user_of_unrelated_programs() -> None:
    """The node's own resolvers among them, in scopes that systemd was asked for."""
    scope = dataclasses.replace(process("/a.slice/resolver.scope", user=65534), transient=True)
    assert not found(scope, user=65534)
    assert found(process("/a.slice/x.scope", parent=10, user=65534), user=65534)
