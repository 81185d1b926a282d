"""meshd as a systemd service: replaced, reloaded, killed and rebooted under a steady load."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from meshd.workloads.host import hold_units
from meshd.workloads.host.hold_units import Preparation
from tests.host.machine import now
from tests.host.node import ROLES, SETTINGS, Node
from tests.host.population import IMAGES, deployment
from tests.host.traffic import Span, is_lossless, lost_only_what_was_in_flight
from tests.host.tree import CHECKOUT
from tests.waiting import eventually


def test_nothing_fails_while_meshd_is_restarted_and_the_proxies_are_the_same(well: Node) -> None:
    before, resolver = well.proxies(), well.children()["resolver"].pid
    with well.load() as reports:
        for _ in range(3):
            well.systemctl("restart", "meshd")
            well.get_well()
    is_lossless(*reports)
    assert well.proxies() == before
    assert well.children()["resolver"].pid == resolver


def test_the_proxies_from_before_a_restart_take_in_pods_that_start_after_it(well: Node) -> None:
    before = well.proxies()
    well.systemctl("restart", "meshd")
    well.get_well()
    command = ("meshctl", "testbed", "up", "-f", "-", "--images", IMAGES)
    well.machine.ask(*command, text=deployment("late"))
    asked = ("-n", "mesh", "deploy/late", "--", "curl", "-sS", "-m", "20", "http://server:8080/")
    assert well.machine.ask("meshctl", "testbed", "exec", *asked) == "ok\n"
    assert well.proxies() == before
    well.machine.ask("meshctl", "testbed", "down")
    well.up()


def test_nothing_fails_when_the_supervisor_is_killed(well: Node) -> None:
    before = well.proxies()
    main = well.machine.ask("systemctl", "show", "-P", "MainPID", "meshd").strip()
    with well.load() as reports:
        well.machine.ask("kill", "-KILL", main)
        eventually(
            lambda: (
                well.machine.ask("systemctl", "show", "-P", "MainPID", "meshd").strip()
                not in {main, "0"}
            ),
            "systemd starts meshd again",
        )
        well.get_well()
    is_lossless(*reports)
    assert well.proxies() == before


@pytest.mark.parametrize("role", ROLES)
def test_nothing_fails_when_a_role_is_killed(well: Node, role: str) -> None:
    with well.load() as reports:
        for _ in range(3):
            well.kill(role)
            well.get_well()
    is_lossless(*reports)


def test_killed_proxies_fail_nothing_but_what_clients_have_in_flight_in_them(well: Node) -> None:
    deaths: list[Span] = []
    with well.load() as reports:
        for name in ("proxy-0", "proxy-1") * 3:
            deaths.append(well.kill(name))
            well.get_well()
    (report,) = reports
    lost_only_what_was_in_flight(report, deaths)


def test_nothing_fails_when_what_answers_queries_is_killed(well: Node) -> None:
    """A query of that moment is asked again; half of the requests have one of their own."""
    with well.load() as reports:
        for name in ("dns-0", "dns-1", "resolver"):
            well.kill(name)
            well.get_well()
    (report,) = reports
    assert report.done > 0
    assert not report.failed, report


def test_proxies_come_before_what_else_wants_the_processor(well: Node) -> None:
    for name in ("meshd.slice", "meshd-proxies.slice"):
        assert int(well.machine.ask("systemctl", "show", "-P", "CPUWeight", name)) == 1000


def test_stopping_meshd_leaves_the_proxies_serving(well: Node) -> None:
    before = well.proxies()
    with well.load() as reports:
        well.systemctl("stop", "meshd")
        assert well.machine.run("pgrep", "-f", "meshd (mesh|capture|identity)").stdout == ""
        assert well.status_of("http://server:8080/") == "200"
        well.systemctl("start", "meshd")
        well.get_well()
    is_lossless(*reports)
    assert well.proxies() == before


def test_reloading_without_a_change_replaces_nothing(well: Node) -> None:
    before = {name: child.pid for name, child in well.children().items()}
    since = now()
    well.systemctl("reload", "meshd")
    eventually(lambda: _told(well, since, "settings read again"), "the settings are read")
    assert {name: child.pid for name, child in well.children().items()} == before


def test_reloading_a_mistake_fails_keeps_the_settings_and_names_the_line(well: Node) -> None:
    before = {name: child.pid for name, child in well.children().items()}
    well.configure(SETTINGS + "log_levle: debug\n")
    since = now()
    try:
        assert well.machine.run("systemctl", "reload", "meshd").returncode
        eventually(lambda: _told(well, since, "meshd.yaml:4: .*log_levle"), "the mistake is told")
        assert {name: child.pid for name, child in well.children().items()} == before
    finally:
        well.configure(SETTINGS)


def test_reloading_new_settings_of_the_proxies_replaces_the_pool_and_fails_nothing(
    well: Node,
) -> None:
    before, since = well.proxies(), now()
    with well.load() as reports:
        well.configure(SETTINGS.replace("drain_time: 2s", "drain_time: 2s, max_connections: 9999"))
        well.systemctl("reload", "meshd")
        eventually(
            lambda: not set(well.proxies().values()) & set(before.values()) and well.is_well(),
            "all proxies are new",
        )
    assert not _told(well, since, "pending queries may be lost")
    (report,) = reports
    assert report.done > 0
    assert not report.failed, report
    well.configure(SETTINGS)
    well.systemctl("reload", "meshd")
    eventually(well.is_well, "it is well again")


def test_each_service_is_hardened(tmp_path: Path) -> None:
    written = hold_units.files(Preparation(unit="web.service", meshctl="/bin/true", home="/srv"))
    hold = tmp_path / hold_units.hold_of("web.service")
    hold.write_text(written[hold.name], encoding="utf-8")
    for unit in (*(CHECKOUT / "systemd").glob("*.service"), hold):
        command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(rf"exposure level for {unit.name}: ([\d.]+)", told)
        assert found
        assert float(found[1]) <= 4.0, told


def test_the_sandbox_is_where_it_should_be(well: Node) -> None:
    main = well.machine.ask("systemctl", "show", "-P", "MainPID", "meshd").strip()
    inside = ("nsenter", f"--target={main}", "--mount", "--")
    homes = {"/home", "/root"} if CHECKOUT.parts[1] not in {"home", "root"} else set[str]()
    for path in (f"{directory}/x" for directory in ("/usr", "/etc", *homes)):
        assert well.machine.run(*inside, "touch", path).returncode != 0, path
    status = well.machine.ask("cat", f"/proc/{main}/status")
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status


def test_roles_without_privileges_are_confined_further_than_the_service(well: Node) -> None:
    def filters(pid: int) -> int:
        status = well.machine.ask("cat", f"/proc/{pid}/status")
        found = re.search(r"Seccomp_filters:\t(\d+)", status)
        assert found
        return int(found[1])

    running = well.children()
    few = filters(running["capture"].pid)
    for role in ("identity", "mesh", "telemetry", "proxy-0"):
        found = [child for name, child in running.items() if name.partition(".")[0] == role]
        assert all(filters(child.pid) > few for child in found), role
        for child in found:
            status = well.machine.ask("cat", f"/proc/{child.pid}/status")
            assert role == "proxy-0" or "CapBnd:\t0000000000000000" in status


def test_a_supervisor_that_hangs_is_replaced_by_the_watchdog_and_nothing_fails(well: Node) -> None:
    drop_in = "/etc/systemd/system/meshd.service.d/watchdog.conf"
    well.machine.write(drop_in, "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    well.systemctl("daemon-reload")
    well.systemctl("restart", "meshd")
    well.get_well()
    eventually(lambda: len(well.proxies()) == 4, "proxies that were replaced before have ended")
    before = well.proxies()
    main = well.machine.ask("systemctl", "show", "-P", "MainPID", "meshd").strip()
    try:
        with well.load() as reports:
            well.machine.ask("kill", "-STOP", main)
            eventually(
                lambda: (
                    well.machine.ask("systemctl", "show", "-P", "MainPID", "meshd").strip()
                    not in {main, "0"}
                ),
                "systemd starts meshd again",
            )
            well.get_well()
        is_lossless(*reports)
        eventually(lambda: well.proxies() == before, "it has found all proxies, which are the same")
    finally:
        well.machine.ask("rm", drop_in)
        well.systemctl("daemon-reload")
        well.systemctl("restart", "meshd")


def _told(node: Node, since: str, pattern: str) -> bool:
    found = node.machine.journal("--unit=meshd", since)
    return any(re.search(pattern, str(entry.get("MESSAGE"))) for entry in found)
