"""top: what it says of workloads that are, and of those that are not there."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from meshd import wire
from meshd.cli.output import plain_lines
from meshd.cli.top import table
from meshd.telemetry.usage import Usage

WEB = wire.WorkloadStatus(
    workload="web",
    namespace="shop",
    service_account="web",
    node="one",
    address="198.18.0.7",
    netns="/nowhere/web",
    proxy="",
    captured=True,
    certificate_expires=None,
    synced=True,
    proven=True,
    problem="",
)
ROW = Usage(
    namespace="shop",
    workload="web",
    processes=2,
    cpu_percent=12.34,
    memory=12_300_000,
    disk=4096,
    volumes=None,
    connections=3,
    received=1500,
    sent=0,
    received_per_second=None,
    sent_per_second=0.5,
)


def test_a_table_has_a_cell_for_everything(capsys: pytest.CaptureFixture[str]) -> None:
    head, row = plain_lines(table([ROW]))
    assert head.replace("CPU %", "CPU").split()[:5] == [
        *("NAMESPACE", "WORKLOAD", "CPU", "MEMORY", "DISK")
    ]
    assert row.split() == [
        *("shop", "web", "12.3", "12.3MB", "4.1kB", "-", "3"),
        *("1.5kB", "0B", "-", "0.5B", "2"),
    ]


def test_a_workload_whose_namespace_is_gone_has_a_row(daemon: Any, meshctl: Any) -> None:
    daemon.says(wire.Statuses((WEB,)))
    result = meshctl("top", "-o", "json")
    assert result.code == 0
    (row,) = json.loads(result.out)
    assert (row["workload"], row["processes"], row["received"]) == ("web", 0, None)


def test_only_the_namespace_that_is_asked_for_is_shown(daemon: Any, meshctl: Any) -> None:
    daemon.says(wire.Statuses((WEB,)))
    assert meshctl("top", "--once", "-n", "other").lines == ["no workloads are registered"]


def test_nobody_but_root_can_look(daemon: Any, meshctl: Any) -> None:
    daemon.says(wire.Statuses((WEB,)))
    os.seteuid(65534)
    try:
        result = meshctl("top", "--once")
    finally:
        os.seteuid(0)
    assert result.code == 1
    assert result.err == "meshctl top reads other users' processes: run it as root\n"


def test_without_a_daemon_it_says_so(meshctl: Any) -> None:
    assert meshctl("top").code == 3


def test_an_interval_of_nothing_is_wrong_usage(meshctl: Any) -> None:
    assert meshctl("top", "--interval", "0s").code == 2
