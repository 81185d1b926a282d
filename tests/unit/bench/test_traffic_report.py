"""Tables show what was measured, and why something was not."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from meshd.base.errors import SystemRefusedError
from tests.bench import throughput, traffic_report
from tests.bench.__main__ import measured
from tests.bench.figures import Json
from tests.bench.load import Load
from tests.bench.throughput import SCENARIOS, Run


def printed(result: Json) -> str:
    console = Console(file=StringIO(), width=200)
    for table in traffic_report.tables(result):
        console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_part_that_fails_is_named_and_those_after_it_are_measured() -> None:
    def fails() -> Json:
        raise SystemRefusedError("no nginx")

    found = measured({"load": fails, "costs": lambda: {"memory": [1]}})

    assert found == {"memory": [1], "failed": {"load": "SystemRefusedError: no nginx"}}


def test_what_was_measured_before_an_interruption_is_kept() -> None:
    def is_interrupted() -> Json:
        raise KeyboardInterrupt

    parts = {"load": lambda: {"x": 1}, "costs": is_interrupted, "holds": lambda: {"y": 2}}

    assert measured(parts) == {"x": 1, "failed": {"costs": "interrupted"}}


def test_a_scenario_that_failed_stands_beside_those_that_did_not() -> None:
    run = Run(Load(rate=100, p50=0.001, p99=0.002, failed=0, answered=200), cpu=0.02)
    found = {"direct": [Run(run.load, 0.0)], "meshd": [run], "sidecars": [run]}
    rows = [
        throughput.as_json(SCENARIOS[0], found),
        {"scenario": "tcp", "error": "nothing was answered", "variants": {}, "ratios": []},
    ]

    text = printed({"throughput": {"same node": rows}})

    assert "nothing was answered" in text
    assert "meshd/sidecars" in text
    (direct,) = (line for line in text.splitlines() if "direct" in line)
    assert direct.split("│")[-3].strip() == "0", "there is no proxy whose time it could be"


def test_cpu_time_is_that_of_a_request() -> None:
    run = Run(Load(rate=100, p50=0.001, p99=0.002, failed=0, answered=200), cpu=0.02)

    row = throughput.as_json(SCENARIOS[0], {"meshd": [run]})

    figures = {one["name"]: one for one in row["variants"]["meshd"]["figures"]}
    assert figures["cpu"]["median"] == 0.0001


def test_connections_that_could_not_be_held_say_why() -> None:
    rows = [
        {"kind": "http", "way": "meshd", "asked": 9, "open": 0, "error": "no room"},
        {"kind": "http", "way": "sidecars", "asked": 9, "open": 9, "memory": 9216, "each": 1024.0},
    ]

    text = printed({"connections": rows})

    assert "no room" in text
    assert "1.0" in text
