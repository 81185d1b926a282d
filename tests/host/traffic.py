"""A steady load in a host, and what came of it; services of hosts that load is between."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.host.machine import Machine
from tests.waiting import PATIENCE

PYTHON: Final = "/usr/bin/python3"
SHOP: Final = "shop.mesh.svc.cluster.local"
OFFERS: Final = ("--port", "8080=http", "--port", "9000=tcp")
"""What a service says of itself that runs apps/server.py."""
_APPS: Final = Path(__file__).with_name("apps")


class Span(NamedTuple):
    """Seconds since the epoch, on the clock that all hosts of the tests share."""

    begun: float
    ended: float

    def touches(self, other: Span) -> bool:
        return self.begun <= other.ended and other.begun <= self.ended


@dataclasses.dataclass(frozen=True)
class Report:
    """What came of a load."""

    done: int
    failed: int
    reasons: dict[str, int]
    longest: float
    echoes: int
    lost: str
    """Why the connection that was to stay did not."""
    again: int
    """Requests over a kept connection that had ended, and went over another one."""
    late: float
    """Seconds that the client itself was too late with a request, at most."""
    failures: list[tuple[float, float, str]]
    """When it began, when it failed, and how."""


@contextlib.contextmanager
def under_load(machine: Machine, *command: str) -> Generator[list[Report]]:
    """``command`` runs apps/load.py from within the block to its end; what came of it is then in
    the list."""
    process = machine.begin(*command)
    reports: list[Report] = []
    try:
        assert process.stdout
        assert process.stdout.readline() == "begun\n", process.communicate()[1]
        yield reports
        output, errors = process.communicate(timeout=2 * PATIENCE)
        assert process.returncode == 0, errors[-2000:]
        found: dict[str, Any] = json.loads(output)
        reports.append(Report(**found))
    finally:
        if process.poll() is None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=PATIENCE)


@contextlib.contextmanager
def enrolled(machine: Machine, unit: str, program: str = "", *options: str) -> Generator[None]:
    """A service of the host in the mesh: one of apps/, or one that others run commands as."""
    for app in _APPS.glob("*.py"):
        machine.write(f"/srv/{app.name}", app.read_text())
    command = f"{PYTHON} /srv/{program}" if program else "/bin/sleep infinity"
    path = f"/etc/systemd/system/{unit}.service"
    machine.write(path, f"[Service]\nExecStart={command}\n")
    try:
        machine.ask("systemctl", "daemon-reload")
        machine.ask("systemctl", "start", unit)
        machine.ask("meshctl", "enroll", unit, "-n", "mesh", *options)
        yield
    finally:
        machine.run("meshctl", "unenroll", unit)
        machine.run("systemctl", "stop", unit)
        machine.run("rm", path)
        machine.run("systemctl", "daemon-reload")


@contextlib.contextmanager
def under_load_from(machine: Machine, unit: str, rate: int = 300) -> Generator[list[Report]]:
    """Asks the shop, as an enrolled service of the host."""
    place = machine.ask("systemctl", "show", "--property=Slice", "--value", unit).strip()
    run = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--slice={place}")
    with under_load(machine, *run, PYTHON, "/srv/load.py", SHOP, str(rate)) as reports:
        yield reports


def is_lossless(report: Report) -> None:
    assert report.done > 0
    assert not report.failed, report
    assert not report.lost, report


def lost_only_what_was_in_flight(report: Report, deaths: Iterable[Span]) -> None:
    """No request failed but those under way when a process died that had the client's end of them.
    Had it had the server's end, the client would have been answered that it is gone."""
    deaths = tuple(deaths)
    assert report.done > 0
    for begun, ended, reason in report.failures:
        assert any(Span(begun, ended).touches(death) for death in deaths), (report, deaths)
        assert "answered" not in reason, report
