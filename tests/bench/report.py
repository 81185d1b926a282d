"""``build/bench.json`` and the tables. Pure but for printing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from tests.bench.cost import KIB, MIB, per_workload, product
from tests.bench.figures import Json


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """What must hold, and what was measured."""

    name: str
    unit: str
    measured: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.measured <= self.limit

    def as_json(self) -> Json:
        return {
            "name": self.name,
            "unit": self.unit,
            "measured": self.measured,
            "limit": self.limit,
            "ratio": self.measured / self.limit,
            "holds": self.holds,
        }


def limits(memory: list[Json], idle: list[Json], enrolment: list[Json]) -> tuple[Limit, ...]:
    """Rows as they were measured: ever more workloads, services for the most, and for a few."""
    few = next(row for row in memory if row["workloads"] > 1)
    most = memory[-2]
    first, last, services = few["workloads"], most["workloads"], most["services"]
    return (
        Limit(
            f"Python processes together, resident, {first} workloads",
            "MiB",
            few["python"]["resident"] / MIB,
            200,
        ),
        Limit("Python processes together, idle", "% of a core", idle[0]["python"], 1),
        Limit(
            f"the pool's memory for one more workload, from {first} to {last}",
            "KiB",
            per_workload(memory, first, last) / KIB,
            100,
        ),
        Limit(
            f"… for one more workload and each of {services} services",
            "bytes",
            product(memory, first, last, services),
            10,
        ),
        *(
            Limit(
                f"enrolment among {row['workloads']}, median",
                "ms",
                row["total"]["median"] * 1000,
                100,
            )
            for row in enrolment
        ),
    )


def show(result: Json, console: Console) -> None:
    for table in (
        _throughput(result["throughput"]),
        _ratios(result["throughput"]),
        _memory(result["memory"]),
        _enrolment(result["enrolment"]),
        _idle(result["idle"]),
        _limits(result["limits"]),
    ):
        console.print(table)


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _throughput(rows: list[Json]) -> Table:
    table = _table("Load", "what", "way", "a second", "p50 ms", "p99 ms", "failed")
    for row in rows:
        for name, variant in row["variants"].items():
            rate, p50, p99 = (figure["median"] for figure in variant["figures"])
            table.add_row(
                row["scenario"],
                name,
                f"{rate:,.0f}",
                f"{p50 * 1000:.2f}",
                f"{p99 * 1000:.2f}",
                str(variant["failed"]),
            )
    return table


def _ratios(rows: list[Json]) -> Table:
    table = _table("Ratios, round by round", "what", "of", "median", "lowest", "highest")
    for row in rows:
        for ratio in row["ratios"]:
            table.add_row(
                row["scenario"],
                ratio["name"],
                *(f"{ratio[key]:.2f}" for key in ("median", "min", "max")),
            )
    return table


def _memory(rows: list[Json]) -> Table:
    columns = [f"{row['workloads']} w, {row['services']} s" for row in rows]
    table = _table("Memory in MiB by workloads and services: resident (private)", "", *columns)
    for at, process in enumerate(rows[0]["processes"]):
        table.add_row(process["name"], *(_sizes(row["processes"][at]) for row in rows))
    table.add_section()
    for name in ("python", "pool"):
        table.add_row(f"{name} together", *(_sizes(row[name]) for row in rows))
    table.add_row("pool, allocated", *(f"{row['pool']['allocated'] / MIB:.2f}" for row in rows))
    return table


def _sizes(sizes: Json) -> str:
    return f"{sizes['resident'] / MIB:.1f} ({sizes['private'] / MIB:.1f})"


def _enrolment(rows: list[Json]) -> Table:
    columns = [f"among {row['workloads']}" for row in rows]
    table = _table("Enrolment in ms: median (highest)", "", *columns)
    for series in zip(*(_enrolment_series(row) for row in rows), strict=True):
        table.add_row(
            series[0]["name"],
            *(f"{one['median'] * 1000:.1f} ({one['max'] * 1000:.1f})" for one in series),
        )
    table.add_row("p95", *(f"{row['total']['p95'] * 1000:.1f}" for row in rows))
    return table


def _enrolment_series(row: Json) -> Iterator[Json]:
    yield row["namespace"]
    yield from row["steps"]
    yield row["total"]


def _idle(rows: list[Json]) -> Table:
    columns = [f"{row['workloads']} workloads" for row in rows]
    table = _table("Idle, % of a core", "", *columns)
    for name in rows[0]["processes"]:
        table.add_row(name, *(f"{row['processes'][name]:.2f}" for row in rows))
    table.add_section()
    for name in ("python", "pool"):
        table.add_row(f"{name} together", *(f"{row[name]:.2f}" for row in rows))
    return table


def _limits(rows: list[Json]) -> Table:
    table = _table("What must hold", "what", "measured", "limit", "")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['measured']:.2f} {row['unit']}",
            f"{row['limit']:g}",
            "✓" if row["holds"] else "✗",
        )
    return table
