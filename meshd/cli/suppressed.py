"""``meshctl suppressed`` shows which log lines were not written, and why."""

from __future__ import annotations

import os
import sys

import msgspec

from meshd.cli.arguments import Output, OutputOption
from meshd.cli.output import Table, emit, is_for_scripts, show
from meshd.telemetry.suppressed import Journal, Row, Tally


def suppressed(output: OutputOption = Output.TABLE) -> None:
    """Show rate-limited and repeated log lines since the last boot, by source."""
    tally = Tally()
    tally.add(Journal().entries())
    if os.geteuid() != 0:
        print("only root is guaranteed to see the whole journal", file=sys.stderr)
    rows = tally.rows
    if is_for_scripts(output):
        emit([_plain(row) for row in rows], output)
    elif rows:
        show(_table(rows))
    else:
        print("nothing was suppressed since the last boot")


def _plain(row: Row) -> dict[str, object]:
    return msgspec.to_builtins(row.what) | {"lines": row.lines, "last": _time(row)}


def _table(rows: tuple[Row, ...]) -> Table:
    return Table(
        ("LINES", "BY", "UNIT", "ROLE", "WORKLOAD", "REASON", "LAST", "MESSAGE"),
        tuple(
            (
                str(row.lines),
                *(row.what.by, row.what.unit, row.what.role, row.what.workload, row.what.reason),
                _time(row),
                row.what.message,
            )
            for row in rows
        ),
    )


def _time(row: Row) -> str:
    return row.last.astimezone().isoformat(timespec="seconds")
