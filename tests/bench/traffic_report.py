"""Tables of what was measured of traffic, on one node and across two. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from rich.table import Table

from tests.bench.cost import KIB
from tests.bench.figures import Json
from tests.bench.tables import titled


def tables(result: Json) -> Iterator[Table]:
    """Yield tables of the parts that were measured."""
    for part, makers in _TABLES.items():
        for place, rows in result.get(part, {}).items():
            for make in makers:
                yield make(place, rows)
    if rows := result.get("connections"):
        yield _connections(rows)


def _throughput(place: str, rows: list[Json]) -> Table:
    columns = ("what", "way", "a second", "p50 ms", "p99 ms", "CPU µs", "failed")
    table = titled(f"Load, {place}; CPU time of all proxies a request", *columns)
    for row in rows:
        if "error" in row:
            table.add_row(row["scenario"], row["error"])
        for name, variant in row["variants"].items():
            rate, p50, p99, cpu = (figure["median"] for figure in variant["figures"])
            figures = (f"{rate:,.0f}", f"{p50 * 1e3:.2f}", f"{p99 * 1e3:.2f}", f"{cpu * 1e6:.0f}")
            table.add_row(row["scenario"], name, *figures, str(variant["failed"]))
    return table


def _ratios(place: str, rows: list[Json]) -> Table:
    """Rates and CPU time over those of the sidecars; the file has all others."""
    columns = ("what", "of", "rate", "lowest", "highest", "CPU")
    table = titled(f"Ratios, {place}, medians of the rounds", *columns)
    for row in rows:
        ratios = {ratio["name"]: ratio for ratio in row["ratios"]}
        for name, rate in ratios.items():
            pair, _, figure = name.rpartition(" ")
            if figure == "rate" and not pair.endswith("/direct"):
                cpu = ratios.get(f"{pair} cpu")
                figures = [f"{rate[key]:.2f}" for key in ("median", "min", "max")]
                figures.append(f"{cpu['median']:.2f}" if cpu else "")
                table.add_row(row["scenario"], pair, *figures)
    return table


def _latency(place: str, rows: list[Json]) -> Table:
    columns = ("what", "a second", "way", "added p50 ms", "added p99 ms", "failed")
    table = titled(f"Latency at fixed rates, {place}, open loop", *columns)
    for row in rows:
        if "error" in row:
            table.add_row(row["kind"], row["error"])
        for at in row["rates"]:
            for name, variant in at["variants"].items():
                added = (variant[f"added {name}"]["median"] for name in ("p50", "p99"))
                figures = (f"{value * 1e3:.2f}" for value in added)
                table.add_row(
                    row["kind"], f"{at['rate']:,.0f}", name, *figures, str(variant["failed"])
                )
    return table


def _transfer(place: str, rows: list[Json]) -> Table:
    table = titled(f"A gigabyte, {place}", "what", "way", "MB a second", "CPU s")
    for row in rows:
        if "error" in row:
            table.add_row(row["kind"], row["error"])
        for name, variant in row["variants"].items():
            rate, cpu = variant["rate"]["median"], variant["cpu"]["median"]
            table.add_row(row["kind"], name, f"{rate / 1e6:,.0f}", f"{cpu:.2f}")
    return table


def _connections(rows: list[Json]) -> Table:
    title = "Connections that do nothing: memory of all proxies for each"
    table = titled(title, "what", "way", "asked for", "open", "KiB each")
    for row in rows:
        each = row.get("error") or f"{row['each'] / KIB:.1f}"
        table.add_row(row["kind"], row["way"], f"{row['asked']:,}", f"{row['open']:,}", each)
    return table


_TABLES: Final[dict[str, tuple[Callable[[str, list[Json]], Table], ...]]] = {
    "throughput": (_throughput, _ratios),
    "latency": (_latency,),
    "transfer": (_transfer,),
}
"""By part of the result."""
