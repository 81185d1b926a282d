"""``build/bench.json`` and the tables. Pure but for printing."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.bench import attacks, traffic_report
from tests.bench.cost import KIB, MIB, per_workload, product
from tests.bench.figures import Json
from tests.bench.tables import titled


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
    """Whatever parts were measured."""
    for part, tables in _TABLES.items():
        for table in tables if part in result else ():
            console.print(table(result[part]))
    for table in traffic_report.tables(result):
        console.print(table)


def _changes(rows: list[Json]) -> Table:
    title = "The mesh role's CPU time in ms, to the resources that differ (wanted, ratio)"
    table = titled(title, "", *(f"{row['services']:,} services" for row in rows))
    for name in (name for name in rows[0]["wanted"] if name != "resident"):
        table.add_row(name.replace("_", " "), *(_beside(row, name, 1000) for row in rows))
    table.add_row("resident, MiB", *(_beside(row, "resident", 1 / MIB) for row in rows))
    return table


def _holds(rows: list[Json]) -> Table:
    title = "The longest step of the mesh role's loop, CPU time in ms (wanted)"
    table = titled(title, "", *(f"{row['services']:,} services" for row in rows))
    for name in rows[0]["holds"]:
        held = (
            f"{row['holds'][name]['seconds'] * 1000:,.0f} ({row['wanted'] * 1000:,.0f})"
            for row in rows
        )
        table.add_row(name.replace("_", " "), *held)
    return table


def _role_holds(rows: list[Json]) -> Table:
    title = "The longest step of each role's loop in a whole mesh, CPU time in ms (wanted)"
    table = titled(title, "", *(f"{row['services']:,} services" for row in rows))
    steps = {name: None for row in rows for name in row["holds"]}
    for step in steps:
        roles = {_role(one): None for row in rows for one in row["holds"].get(step, {})}
        for role in roles:
            held = (
                max(
                    (
                        one["seconds"] * 1000
                        for name, one in row["holds"].get(step, {}).items()
                        if _role(name) == role
                    ),
                    default=0.0,
                )
                for row in rows
            )
            wanted = rows[0]["wanted"] * 1000
            table.add_row(f"{step}, {role}", *(f"{one:,.0f} ({wanted:,.0f})" for one in held))
    return table


def _role(name: str) -> str:
    """Return the node and the role, without the process."""
    return name.rpartition("-")[0]


def _beside(row: Json, name: str, scale: float) -> str:
    measured, wanted = row[name], row["wanted"][name]
    return f"{measured * scale:,.0f} ({wanted * scale:,.0f}, {measured / wanted:.2f})"


def _memory(rows: list[Json]) -> Table:
    columns = [f"{row['workloads']} w, {row['services']} s" for row in rows]
    table = titled("Memory in MiB by workloads and services: resident (private)", "", *columns)
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
    table = titled("Enrolment in ms: median (highest)", "", *columns)
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
    table = titled("Idle, % of a core", "", *columns)
    for name in rows[0]["processes"]:
        table.add_row(name, *(f"{row['processes'][name]:.2f}" for row in rows))
    table.add_section()
    for name in ("python", "pool"):
        table.add_row(f"{name} together", *(f"{row[name]:.2f}" for row in rows))
    return table


def _limits(rows: list[Json]) -> Table:
    table = titled("What must hold", "what", "measured", "limit", "")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['measured']:.2f} {row['unit']}",
            f"{row['limit']:g}",
            "✓" if row["holds"] else "✗",
        )
    return table


def _attacks(rows: list[Json]) -> Table:
    columns = ("by way of", "failed", "p50 ms", "p99 ms", "p99 before", "ratio", "new", "names", "")
    table = titled("A neighbour of a hostile workload", "attack", *columns)
    for row in rows:
        sides = {
            side: [one[side]["kept"] for one in row["rounds"]] for side in ("before", "during")
        }
        table.add_row(
            row["attack"],
            row["way"],
            f"{row['failed']} of {row['count']}",
            *(
                f"{1000 * statistics.median(one[key] for one in sides[side]):.2f}"
                for side, key in (("during", "p50"), ("during", "p99"), ("before", "p99"))
            ),
            *(f"{row['ratio'][kind]:.1f}" for kind in attacks.KINDS),
            "✓" if attacks.holds(row) else "✗",
        )
    return table


_TABLES: Final[dict[str, tuple[Callable[[list[Json]], Table], ...]]] = {
    "changes": (_changes,),
    "holds": (_holds,),
    "role_holds": (_role_holds,),
    "attacks": (_attacks,),
    "memory": (_memory,),
    "enrolment": (_enrolment,),
    "idle": (_idle,),
    "limits": (_limits,),
}
"""By part of the result."""
