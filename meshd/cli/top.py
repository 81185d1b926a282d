"""``meshctl top`` shows what each workload of this node uses, live."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import msgspec
import typer

from meshd import wire
from meshd.api.base import Duration
from meshd.base.errors import SystemRefusedError
from meshd.base.json_values import JsonObject
from meshd.capture.pods.namespaces import Pins
from meshd.cli.arguments import Output, OutputOption, parse_duration
from meshd.cli.daemon import Target
from meshd.cli.output import Table, emit, is_for_scripts, show, tell
from meshd.settings import Paths
from meshd.telemetry.usage import Order, Sample, Usage, compare, ordered, size
from meshd.telemetry.usage_reading import Place, Reader

_INTERVAL: Final = Duration(2)
_FIRST_LOOK: Final = 0.5
"""Seconds between the first two looks: nobody likes to wait for a first picture."""
_COLUMNS: Final = (
    *("NAMESPACE", "WORKLOAD", "CPU %", "MEMORY", "DISK", "VOLUMES", "CONNECTIONS"),
    *("IN", "OUT", "IN/S", "OUT/S", "PROCESSES"),
)
_AS_WORDS: Final = 2
"""So many columns are names; the rest are numbers, which stand to the right."""


def top(
    context: typer.Context,
    namespace: str = typer.Option(
        "", "--namespace", "-n", metavar="NAME", help="Only this namespace."
    ),
    once: Annotated[
        bool, typer.Option("--once", help="Print once, as when the output is not a terminal.")
    ] = False,
    interval: Annotated[
        Duration,
        typer.Option(metavar="DURATION", parser=parse_duration, help="Refresh interval."),
    ] = _INTERVAL,
    sort: Annotated[Order, typer.Option(help="Sort by this column, largest first.")] = Order.NAME,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what each workload uses, live until Ctrl-C.

    CPU: 100 is one core. MEMORY: what its processes share is divided among them. DISK: what it
    wrote to its own layer and temporary files. VOLUMES: what is in directories mounted for it.
    CONNECTIONS: established, its processes' own. IN and OUT: bytes that its namespace received and
    sent, and those of a service of the host over the connections that it has now.
    """
    if os.geteuid() != 0:
        raise SystemRefusedError("meshctl top reads other users' processes: run it as root")
    if interval <= 0:
        raise typer.BadParameter("must be greater than 0", param_hint="--interval")
    look = Look(context.obj, namespace, sort)
    look.rows()
    if once or not sys.stdout.isatty() or output is not Output.TABLE:
        time.sleep(min(_FIRST_LOOK, interval))
        _print(look.rows(), output)
    else:
        _live(look.rows, interval)


class Look:
    """A measurement; each call returns the usage since the last one."""

    def __init__(self, target: Target, namespace: str, order: Order) -> None:
        self._target = target
        self._namespace = namespace
        self._order = order
        self._reader = Reader()
        self._before: dict[str, Sample] = {}
        self._pins = Pins(Paths.from_environment().netns)

    def rows(self) -> list[Usage]:
        """Raises UnreachableError, RefusedError."""
        answer = self._target.ask(wire.Status(), wire.Statuses)
        found = {
            _name(row): row for row in answer.workloads if self._namespace in {"", row.namespace}
        }
        samples = self._reader.read(
            Place(name, self._place_of(row), row.cgroup) for name, row in found.items()
        )
        rows = [
            compare(row.namespace, row.workload, self._before.get(name), samples[name])
            for name, row in found.items()
        ]
        self._before = samples
        return ordered(rows, self._order)

    def _place_of(self, row: wire.WorkloadStatus) -> str:
        """Return where the workload's namespace is; another one may be at its old path by now."""
        pin = self._pins.find(row.uid) if row.netns and row.uid else None
        return str(pin.path) if pin else row.netns


def _name(row: wire.WorkloadStatus) -> str:
    return f"{row.namespace}/{row.workload}"


def _print(rows: list[Usage], output: Output) -> None:
    if is_for_scripts(output):
        emit([_for_scripts(row) for row in rows], output)
    elif output is Output.NAME:
        for row in rows:
            tell(f"{row.namespace}/{row.workload}")
    elif rows:
        show(table(rows))
    else:
        print("no workloads are registered")


def _for_scripts(row: Usage) -> JsonObject:
    """Return numbers rounded to the digits that mean something."""
    value: JsonObject = msgspec.to_builtins(row)
    return {key: round(part, 3) if isinstance(part, float) else part for key, part in value.items()}


def table(rows: Sequence[Usage]) -> Table:
    return Table(
        _COLUMNS,
        tuple(
            (
                row.namespace,
                row.workload,
                f"{row.cpu_percent:.1f}",
                size(row.memory),
                size(row.disk),
                size(row.volumes),
                str(row.connections),
                size(row.received),
                size(row.sent),
                size(row.received_per_second),
                size(row.sent_per_second),
                str(row.processes),
            )
            for row in rows
        ),
    )


def _live(rows: Callable[[], list[Usage]], interval: float) -> None:
    """Refresh the table until Ctrl-C."""
    from rich.console import Group  # noqa: PLC0415  # costs 50 ms, which scripts need not pay
    from rich.live import Live  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    def picture() -> Group:
        drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for number, column in enumerate(_COLUMNS):
            right = number >= _AS_WORDS
            drawn.add_column(column, no_wrap=True, justify="right" if right else "left")
        found = rows()
        for row in table(found).rows:
            drawn.add_row(*(Text(cell or "-") for cell in row))
        head = f"{time.strftime('%H:%M:%S')}, {len(found)} workloads; Ctrl-C ends"
        return Group(Text(head, style="dim"), drawn)

    try:
        time.sleep(min(_FIRST_LOOK, interval))
        with Live(picture(), auto_refresh=False, screen=True) as live:
            while True:
                time.sleep(interval)
                live.update(picture(), refresh=True)
    except KeyboardInterrupt:
        return
