"""What the load generator of our own prints is understood, and its curves are drawn."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import generator, latency, scheduling
from tests.bench.chart import Curve, chart
from tests.bench.figures import Json, Series

SVG = "{http://www.w3.org/2000/svg}"


def test_latencies_are_in_seconds_and_what_was_not_answered_has_failed() -> None:
    text = '{"due": 10, "answered": 8, "failed": 2, "p50": 1500, "p99": 2000, "p999": 3000}'

    found = generator.parse(text)

    assert (found.due, found.failed, found.p50, found.p999) == (10, 2, 0.0015, 0.003)


def test_a_run_without_an_answer_has_no_latency() -> None:
    with pytest.raises(ValueError, match="none of 10 requests"):
        generator.parse('{"due": 10, "answered": 0, "failed": 10, "p50": 0, "p99": 0}')


def test_a_chart_has_a_line_for_each_curve_and_higher_values_are_higher() -> None:
    curves = (Curve("a<b", ((10, 0.1), (20, 50))), Curve("none", ((10, 0.0), (20, -1))))

    root = ElementTree.fromstring(chart("title", "x", "y", curves))  # noqa: S314 - our own

    lines = root.findall(f"{SVG}polyline")
    assert len(lines) == 2
    first, last = (pair.split(",") for pair in lines[0].attrib["points"].split())
    assert float(first[0]) < float(last[0])
    assert float(first[1]) > float(last[1])
    assert "a<b" in [one.text for one in root.iter(f"{SVG}text")]


def _variant(p50: float) -> Json:
    return {f"added {name}": Series(name, "s", (p50,)).as_json() for name in ("p50", "p99")}


def test_each_kind_and_quantile_has_a_chart_and_a_kind_that_failed_has_none() -> None:
    variants = {"direct": _variant(0), "meshd": _variant(0.001), "sidecars": _variant(0.002)}
    rows = [
        {"kind": "http", "rates": [{"rate": 100, "variants": variants}]},
        {"kind": "tcp", "error": "x", "rates": []},
    ]

    made = latency.charts(rows, "same node")

    assert sorted(made) == ["bench-http-same-node-p50.svg", "bench-http-same-node-p99.svg"]
    assert all("polyline" in text and "direct</text>" not in text for text in made.values())


def test_the_hierarchy_of_the_cpu_is_found_in_either_version(tmp_path: Path) -> None:
    assert scheduling.hierarchy(tmp_path) is None
    second = tmp_path / "cpu,cpuacct"
    second.mkdir()
    (second / "cgroup.procs").touch()
    assert scheduling.hierarchy(tmp_path) == second
    controllers = tmp_path / "cgroup.subtree_control"
    controllers.write_text("memory pids")
    assert scheduling.hierarchy(tmp_path) is None
    controllers.write_text("cpu memory")
    assert scheduling.hierarchy(tmp_path) == tmp_path
