"""enroll: what is asked of the daemon, and what is refused before anything is done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from meshd import wire
from meshd.capture.host import cgroups
from meshd.cli import services
from meshd.workloads.host.systemd import Unit, described
from meshd.workloads.host.units import cgroup_of
from meshd.workloads.strays import Process

CGROUP: Final = "apps/web"
ROW: Final = wire.WorkloadStatus(
    workload="web",
    namespace="shop",
    service_account="till",
    node="one",
    address="198.18.0.7",
    netns="",
    proxy="proxy-0",
    captured=True,
    certificate_expires="2030-01-01T00:00:00Z",
    synced=True,
    proven=True,
    problem="",
    uid="shop.web",
    cgroup=CGROUP,
)
SERVICE: Final = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "front", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"selector": {"app": "front"}, "ports": [{"name": "http-80", "port": 80}]},
}
OFFERS: Final = ("--service", "front", "--port", "80:8080=http")


class Mesh:
    """Knows what is registered and which Services there are; ``server``: it is an agent."""

    def __init__(self) -> None:
        self.rows: dict[str, wire.WorkloadStatus] = {}
        self.begun: tuple[wire.EnrollmentStatus, ...] = ()
        self.awaited = 0
        """How often it is still in the middle of a request."""
        self.services: list[dict[str, Any]] = []
        self.server = ""
        self.refusal = ""
        self.remarks: tuple[str, ...] = ()
        self.known = True

    def __call__(self, request: wire.AnyMessage) -> wire.Message:
        match request:
            case wire.Status():
                control = (
                    wire.ControlStatus(server=self.server, connected=True, since=1.0)
                    if self.server
                    else None
                )
                return wire.Statuses(
                    tuple(self.rows.values()), control=control, enrollments=self.begun
                )
            case wire.Get():
                return wire.Objects(tuple(self.services))
            case wire.Enroll():
                if not self.refusal:
                    self.rows[request.workload.uid] = ROW
                return self.progress()
            case wire.EnrollAgain():
                return self.progress()
            case wire.Unenroll():
                self.rows.pop(request.uid, None)
                return self.progress()
            case wire.Await():
                self.awaited -= 1
                return self.progress()
            case _:
                raise AssertionError(request)

    def progress(self) -> wire.Progress:
        if self.awaited:
            return wire.Progress(number=7, state=1, doing="restart the unit")
        return wire.Progress(
            number=7,
            state=2,
            problem=self.refusal,
            remarks=self.remarks,
            finished=True,
            known=self.known,
        )


@pytest.fixture
def mesh(daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mesh:
    """A host with one cgroup, on which we are root."""
    (tmp_path / CGROUP).mkdir(parents=True)
    monkeypatch.setattr(cgroups, "root", lambda: tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = Mesh()
    daemon.answer = made
    return made


def enroll(meshctl: Any, *options: str) -> Any:
    return meshctl("enroll", "--cgroup", CGROUP, "-n", "shop", *options)


def asked(daemon: Any) -> list[Any]:
    """What changes something."""
    kinds = wire.Enroll | wire.EnrollAgain | wire.Unenroll
    return [one for one in daemon.asked if isinstance(one, kinds)]


def test_one_request_has_all_that_is_to_be_done(daemon: Any, meshctl: Any, mesh: Mesh) -> None:
    result = enroll(meshctl, *OFFERS, "--timeout", "20s", "--no-restart")
    assert (result.code, result.err) == (0, "")
    assert result.out == "shop/web enrolled as till: captured and proven\n"
    (request,) = asked(daemon)
    assert request.workload.uid == "shop.web"
    assert request.workload.host.cgroup == CGROUP
    assert request.service == "front"
    assert request.ports == (wire.OfferedPort(80, 8080, "http"),)
    assert (request.restart, request.timeout) == (False, 20.0)


def test_it_waits_until_all_is_done_and_tells_what_there_is_to_know(
    daemon: Any, meshctl: Any, mesh: Mesh
) -> None:
    mesh.awaited, mesh.remarks = 2, ("user eve can change /opt",)
    result = enroll(meshctl)
    assert (result.code, result.err) == (0, "user eve can change /opt\n")
    questions = [one for one in daemon.asked if isinstance(one, wire.Await)]
    assert [(one.number, one.seen) for one in questions] == [(7, 1), (7, 1)]


def test_the_same_again_while_it_is_in_work_is_the_same_request(
    daemon: Any, meshctl: Any, mesh: Mesh
) -> None:
    mesh.rows["shop.web"] = ROW
    mesh.begun = (
        wire.EnrollmentStatus(
            what=f"enrollment of {CGROUP}", uid="shop.web", cgroup=CGROUP, since=0.0
        ),
    )
    assert enroll(meshctl, *OFFERS).code == 0
    (request,) = asked(daemon)
    assert isinstance(request, wire.Enroll)


def test_interrupting_the_command_tells_that_meshd_goes_on(
    daemon: Any, meshctl: Any, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: wire.Progress) -> None:
        raise KeyboardInterrupt

    mesh.awaited = 1
    monkeypatch.setattr("meshd.cli.carrying_out._show", interrupt)
    result = enroll(meshctl)
    assert (result.code, len(asked(daemon))) == (130, 1)
    assert "interrupted; meshd goes on with it" in result.err


def test_what_the_daemon_does_not_know_any_more_is_no_success(meshctl: Any, mesh: Mesh) -> None:
    mesh.known = False
    result = enroll(meshctl)
    assert (result.code, result.err) == (
        1,
        "meshd does not know how it has ended: see meshctl status\n",
    )


def test_a_slow_enrollment_is_left_to_the_daemon(
    daemon: Any, meshctl: Any, mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.cli.carrying_out._PATIENCE", 0.2)
    mesh.awaited = -1
    result = enroll(meshctl, "--timeout", "0s")
    assert result.code == 1
    assert result.err == (
        "not finished (restart the unit); meshd goes on with it: see meshctl status\n"
    )


def test_an_agent_says_what_to_apply_on_its_server_and_does_nothing(
    daemon: Any, meshctl: Any, mesh: Mesh
) -> None:
    mesh.server = "hub:15012"
    result = enroll(meshctl, *OFFERS)
    assert (result.code, mesh.rows, asked(daemon)) == (1, {}, [])
    assert result.err.startswith("Service shop/front comes from hub:15012, and does not exist yet;")
    assert "meshctl apply -f - <<END\napiVersion: v1\nkind: Service\n" in result.err
    assert "made-for" not in result.err

    mesh.services = [SERVICE]
    result = enroll(meshctl, "--service", "front", "--port", "81:8080=http")
    assert (result.code, mesh.rows) == (1, {})
    assert "lacks a port" in result.err
    assert "port: 81" in result.err
    assert "creationTimestamp" not in result.err


def test_an_agent_joins_a_service_that_its_server_has(
    daemon: Any, meshctl: Any, mesh: Mesh
) -> None:
    mesh.server, mesh.services = "hub:15012", [SERVICE]
    assert enroll(meshctl, *OFFERS).code == 0
    (request,) = asked(daemon)
    assert request.service == "front"


def test_a_refused_enrollment_enrolls_nothing(meshctl: Any, mesh: Mesh) -> None:
    mesh.refusal = f"not in the mesh after 30 s: shop.web: no proxy; {CGROUP} was not enrolled"
    result = enroll(meshctl, "--port", "80")
    assert (result.code, result.err) == (1, f"{mesh.refusal}\n")
    assert not mesh.rows


@pytest.mark.parametrize(
    "options", [("-n", "bank"), ("--name", "shop"), ("--service-account", "x"), ("--label", "a=b")]
)
def test_a_unit_enrolled_otherwise_is_told_how(
    meshctl: Any, mesh: Mesh, options: tuple[str, ...]
) -> None:
    mesh.rows["shop.web"] = ROW
    result = enroll(meshctl, *options)
    assert result.code == 1
    assert result.err == (
        f"{CGROUP} is enrolled as shop/web (service account till); meshctl unenroll it first\n"
    )


def test_the_same_again_is_no_error(daemon: Any, meshctl: Any, mesh: Mesh) -> None:
    mesh.rows["shop.web"] = ROW
    assert enroll(meshctl, "--name", "web", "--service-account", "till").code == 0
    assert meshctl("enroll", "--cgroup", CGROUP).code == 0
    assert asked(daemon) == [wire.EnrollAgain(uid="shop.web", timeout=30.0)] * 2


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("-n", "Shop_X"), 2, '--namespace: "Shop_X" is not a DNS label'),
        (("--name", "a b"), 2, '--name: "a b" is not a DNS name'),
        (("--service-account", "A"), 2, '--service-account: "A" is not a DNS name'),
        (("--cgroup", "no/such"), 1, "there is no cgroup no/such"),
    ],
)
def test_impossible_requests_are_refused_at_once(
    daemon: Any, meshctl: Any, mesh: Mesh, options: tuple[str, ...], code: int, told: str
) -> None:
    result = enroll(meshctl, *options)
    assert result.code == code
    assert told in result.err
    assert not daemon.asked


def unit(text: str) -> Unit:
    return described("web.service", text)


def test_a_unit_that_was_not_restarted_runs_outside() -> None:
    active = "LoadState=loaded\nActiveState=active\nControlGroup="
    assert unit(f"{active}/system.slice/web.service").is_outside
    assert not unit(f"{active}/{cgroup_of('web.service')}/web.service").is_outside
    assert not unit("LoadState=loaded\nActiveState=inactive\nControlGroup=").is_outside


def test_a_unit_outside_its_cgroup_is_not_called_proven_and_is_named() -> None:
    rows = [msgspec.structs.replace(ROW, unit="web.service")]
    outside = unit("LoadState=loaded\nActiveState=active\nControlGroup=/system.slice/web.service")
    (row,) = services.with_bypasses(rows, {"web.service": outside})
    assert (row.proven, row.problem) == (
        False,
        "web.service bypasses the mesh until it is restarted",
    )
    stopped = {"web.service": unit("LoadState=loaded\nActiveState=failed\nControlGroup=")}
    assert services.with_bypasses(rows, stopped) == rows
    (row,) = services.with_rests(rows, stopped)
    assert (row.proven, row.problem) == (True, "web.service does not run: failed")
    assert services.with_rests(rows, {}) == rows


class Manager:
    """A systemd with one unit; ``traces``: some file of an enrollment is there."""

    def __init__(self, *, traces: bool = False) -> None:
        self.traces = traces

    def __call__(self) -> Manager:
        return self

    def look(self, name: str) -> Unit:
        return unit("LoadState=loaded\nActiveState=active\nControlGroup=\nInvocationID=f00")

    def is_prepared(self, name: str) -> bool:
        return False

    def has_traces(self, name: str) -> bool:
        return self.traces


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager()
    monkeypatch.setattr("meshd.cli.enroll.Systemd", made)
    monkeypatch.setattr("meshd.cli.place.Systemd", made)
    return made


def test_all_units_and_cgroups_leave(
    daemon: Any, meshctl: Any, mesh: Mesh, manager: Manager
) -> None:
    mesh.rows["shop.web"] = msgspec.structs.replace(ROW, unit="web.service")
    result = meshctl("unenroll", "--all")
    assert (result.code, result.out, result.err) == (0, "shop/web unenrolled\n", "")
    assert asked(daemon) == [wire.Unenroll(uid="shop.web", unit="web.service", run="f00")]


def test_a_failure_to_undo_is_reported_and_the_others_leave(
    daemon: Any, meshctl: Any, mesh: Mesh, manager: Manager
) -> None:
    mesh.rows["shop.web"] = msgspec.structs.replace(ROW, unit="web.service")
    mesh.rows["shop.api"] = msgspec.structs.replace(ROW, uid="shop.api", workload="api")
    mesh.refusal = "Job for web.service failed."
    result = meshctl("unenroll", "--all")
    assert (result.code, len(asked(daemon))) == (1, 2)
    assert "shop/web: Job for web.service failed.\n" in result.err


def test_an_enrollment_that_is_not_finished_can_be_given_up(
    daemon: Any, meshctl: Any, mesh: Mesh, manager: Manager
) -> None:
    mesh.begun = (
        wire.EnrollmentStatus(
            what="enrollment of web.service", uid="shop.web", unit="web.service", since=0.0
        ),
    )
    assert meshctl("unenroll", "web").code == 0
    assert asked(daemon) == [wire.Unenroll(uid="shop.web", unit="web.service", run="f00")]


def test_a_unit_of_which_only_a_file_is_left_leaves(
    daemon: Any, meshctl: Any, mesh: Mesh, manager: Manager
) -> None:
    result = meshctl("unenroll", "web")
    assert (result.code, result.err) == (
        1,
        "web.service is not enrolled: see meshctl status\n",
    )
    manager.traces = True
    assert meshctl("unenroll", "web").out == "web.service unenrolled\n"
    assert asked(daemon) == [wire.Unenroll(unit="web.service", run="f00")]


def test_status_does_not_call_a_unit_proven_whose_processes_left_its_cgroup() -> None:
    row = msgspec.structs.replace(ROW, unit="web.service", cgroup=cgroup_of("web.service"))
    cgroup = f"/{row.cgroup}/web.service"
    active = f"LoadState=loaded\nActiveState=active\nControlGroup={cgroup}\nUID=990"
    inside = Process(10, 1, "web", 990, cgroup)
    session = Process(11, 10, "bash", 0, "/user.slice/user-0.slice/session-1.scope")
    units = {"web.service": unit(active)}
    (well,) = services.with_strays([row], units, lambda: {10: inside})
    assert well == row
    (left,) = services.with_strays([row], units, lambda: {10: inside, 11: session})
    assert not left.proven
    assert "11 (bash) in /user.slice" in left.problem


def test_enrolling_a_unit_tells_what_the_mesh_does_not_see_of_it() -> None:
    row = msgspec.structs.replace(ROW, unit="web.service", cgroup=cgroup_of("web.service"))
    state = "LoadState=loaded\nActiveState=active\nControlGroup="
    active = f"{state}/{row.cgroup}/web.service"
    assert services.remarks(row, unit(f"{active}\nIPAddressDeny="), dict) == ()
    (told,) = services.remarks(row, unit(f"{active}\nIPAddressDeny=::/0 0.0.0.0/0"), dict)
    assert told.startswith(
        "IPAddressDeny= of web.service now applies to its connections to the proxy"
    )
    (told,) = services.remarks(row, unit(f"{state}/system.slice/web.service"), dict)
    assert told == services.outside("web.service")
    left = {
        10: Process(10, 1, "web", 990, f"/{row.cgroup}/web.service"),
        11: Process(11, 10, "curl", 990, "/user.slice/user-990.slice/session-2.scope"),
    }
    (told,) = services.remarks(row, unit(active), lambda: left)
    assert "11 (curl)" in told
