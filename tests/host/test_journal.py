"""What the journal holds of meshd, and that a flood neither fills it nor costs others a line."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from tests.host.machine import now
from tests.host.node import ROLES, Node
from tests.waiting import eventually

SECONDS = float(os.environ.get("MESHD_FLOOD_SECONDS", "4"))
RATE = 100_000
LINES, BURST = 20, 10
"""The budget: lines a second, and so many seconds' worth at once."""


def suppressed(node: Node) -> list[dict[str, Any]]:
    return json.loads(node.machine.ask("meshctl", "suppressed", "-o", "json"))


def output_of_a_proxy(node: Node) -> str:
    return f"/proc/{next(iter(node.proxies().values()))}/fd/1"


def test_every_process_logs_with_fields_of_its_own(well: Node) -> None:
    well.systemctl("restart", "meshd")
    well.get_well()

    def events() -> set[str]:
        entries = well.machine.journal("--unit=meshd", "MESHD_ROLE=supervisor")
        return {entry["MESHD_EVENT"] for entry in entries}

    def proven() -> list[dict[str, Any]]:
        entries = well.machine.journal("--unit=meshd", "MESHD_ROLE=capture", "MESHD_EVENT=capture")
        return [entry for entry in entries if "proven" in entry["MESSAGE"]]

    def workloads() -> set[str]:
        return {entry["MESHD_WORKLOAD"].split("-")[0] for entry in proven()}

    eventually(lambda: events() >= {"started", "adopted"}, "the supervisor has logged")
    eventually(lambda: workloads() >= {"mesh.client", "mesh.server"}, "the capture role has logged")
    assert {entry["PRIORITY"] for entry in proven()} == {"6"}
    everything = well.machine.journal("--unit=meshd")
    roles = {entry.get("MESHD_ROLE") for entry in everything if entry.get("MESHD_ROLE")}
    assert roles >= {*ROLES, "supervisor"} - {"identity"}
    assert not [entry for entry in everything if "Traceback" in str(entry["MESSAGE"])]


def test_a_line_shows_whose_it_is(well: Node) -> None:
    printed = well.machine.ask("journalctl", "--unit=meshd", "--output=short", "--no-hostname")
    for name in ("meshd", "meshd/mesh", "meshd/capture"):
        assert f" {name}[" in printed


def test_access_lines_are_of_their_workload_and_only_errors_are_written(well: Node) -> None:
    since = now()
    well.client("curl", "-s", "http://server:8080/")
    well.client("curl", "-s", "http://server:8080/fail")

    def told() -> list[dict[str, Any]]:
        entries = well.machine.journal("--unit=meshd", "MESHD_EVENT=access", since)
        return [entry for entry in entries if entry["MESHD_WORKLOAD"].startswith("mesh.client")]

    (entry, *_) = eventually(told, "the failed request is in the journal")
    assert entry["PRIORITY"] == "6"
    assert entry["MESHD_ROLE"].startswith("proxy-")
    assert entry["MESSAGE"].startswith("[20")
    assert '"GET /fail HTTP/1.1" 503' in entry["MESSAGE"]
    assert not [entry for entry in told() if '"GET / ' in entry["MESSAGE"]]


def test_lines_of_envoy_have_the_priority_that_it_gave_them(well: Node) -> None:
    log = output_of_a_proxy(well)
    lines = "[warning] [x] careful\\n[error] [x] broken\\n[info] [x] well\\n"
    since = now()
    well.machine.ask("sh", "-c", f"printf '{lines}' >> {log}")

    def told() -> dict[str, str]:
        entries = well.machine.journal("--unit=meshd", since)
        return {entry["MESSAGE"]: entry["PRIORITY"] for entry in entries}

    wanted = {"[x] careful": "4", "[x] broken": "3", "[x] well": "6"}
    eventually(lambda: wanted.items() <= told().items(), "all three are told")


def test_a_flood_is_bounded_and_accounted_for_and_costs_others_nothing(well: Node) -> None:
    log = output_of_a_proxy(well)
    least = int(50 * LINES * (BURST + SECONDS))
    flood = ("python3", "/srv/tests/flood.py", log, str(SECONDS), str(RATE), str(least))
    begun = time.monotonic()
    loud, quiet = map(int, well.machine.ask(*flood).split())
    assert loud >= least

    def written(name: str) -> int:
        match = ("--unit=meshd", f"MESHD_WORKLOAD=mesh.{name}", "MESHD_EVENT=access")
        return len(well.machine.journal(*match))

    def dropped() -> int:
        rows = [row for row in suppressed(well) if row["workload"] == "mesh.loud"]
        assert {row["message"] for row in rows} <= {"access log 503 UF"}
        return sum(row["lines"] for row in rows)

    eventually(lambda: written("loud") + dropped() == loud, "each line is written or counted")
    passed = time.monotonic() - begun
    eventually(lambda: written("quiet") == quiet, "no line of another is lost")
    assert written("loud") <= LINES * (BURST + passed)
    lost = [row for row in suppressed(well) if row["by"] == "journald"]
    assert not [row for row in lost if row["unit"] == "meshd.service"]
    counted = well.metric("meshd_log_suppressed_total{")
    assert sum(value for key, value in counted.items() if "mesh.loud" in key) == dropped()
    well.get_well()


def test_equal_lines_are_told_once_with_their_number(well: Node) -> None:
    log = output_of_a_proxy(well)
    program = f"for _ in range(413): print('[warning] [x] again', file=open('{log}', 'a'))"
    written = ("--unit=meshd", now())
    well.machine.ask("python3", "-c", program)

    def told() -> int:
        rows = [row for row in suppressed(well) if row["message"] == "[x] again"]
        assert {row["reason"] for row in rows} <= {"repeated"}
        return sum(row["lines"] for row in rows)

    eventually(
        lambda: (
            told()
            + sum(1 for one in well.machine.journal(*written) if one["MESSAGE"] == "[x] again")
            == 413
        ),
        "each is written or counted",
    )
    assert told() > 400


def test_lines_that_journald_drops_of_other_units_are_added_up(well: Node) -> None:
    # journald tells when the unit writes again later, by its own clock: it may be behind.
    script = "seq 2000; for round in 1 2 3 4; do sleep 1.5; echo again; done"
    limits = ("-p", "LogRateLimitIntervalSec=1s", "-p", "LogRateLimitBurst=10")
    well.machine.ask(
        *("systemd-run", "--wait", "--quiet", "--unit=noisy", *limits, "sh", "-c", script)
    )

    def rows() -> list[dict[str, Any]]:
        return [row for row in suppressed(well) if row["unit"] == "noisy.service"]

    def accounted() -> int:
        written = len(well.machine.journal("--unit=noisy", "_TRANSPORT=stdout"))
        return sum(row["lines"] for row in rows()) + written

    eventually(lambda: accounted() == 2004, "journald has told of each line that it dropped")
    assert {row["by"] for row in rows()} == {"journald"}


def test_the_drop_ins_for_journald_and_rsyslog_are_understood(well: Node) -> None:
    assert well.machine.run("rsyslogd", "-N1").returncode == 0
    shown = well.machine.ask("systemd-analyze", "cat-config", "systemd/journald.conf")
    assert "SystemMaxUse=1G" in shown
    complaints = well.machine.journal("--unit=systemd-journald", "PRIORITY=4")
    assert not complaints
    well.client("curl", "-s", "http://server:8080/fail")
    eventually(
        lambda: "GET /fail" in well.machine.run("cat", "/var/log/meshd-access.log").stdout,
        "access log lines are in a file of their own",
    )
