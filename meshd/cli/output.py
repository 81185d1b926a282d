"""Output: JSON and YAML for scripts, tables for people.

A table has colours on a terminal and plain columns in a pipe. Neither is ever cut off.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import yaml

from meshd.base.printable import printable
from meshd.cli.arguments import Output

_NOTHING: Final = "-"
"""Stands for an empty cell, so that columns can be counted."""
_STYLES: Final = {"yes": "green", "no": "red", "running": "green"}


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def emit(value: object, output: Output) -> None:
    """Print a value for scripts; a list becomes one YAML document for each part."""
    builtins = msgspec.to_builtins(value)
    if output is Output.JSON:
        print(msgspec.json.format(msgspec.json.encode(builtins)).decode())
    elif isinstance(builtins, list):
        print(yaml.safe_dump_all(builtins, sort_keys=False, allow_unicode=True), end="")
    else:
        print(yaml.safe_dump(builtins, sort_keys=False, allow_unicode=True), end="")


def is_for_scripts(output: Output) -> bool:
    return output in {Output.JSON, Output.YAML}


def show(table: Table) -> None:
    if sys.stdout.isatty():
        _show_rich(table)
    else:
        print("\n".join(plain_lines(table)))


def warn(lines: Iterable[str]) -> None:
    for line in lines:
        print(printable(line), file=sys.stderr)


def tell(text: str) -> None:
    """Print a line for people, whoever has written parts of it."""
    print(printable(text))


def yes_no(value: bool) -> str:
    return "yes" if value else "no"


def plain_lines(table: Table) -> list[str]:
    """Return columns as wide as their widest cell, three spaces apart, like kubectl's. Pure."""
    lines = [table.columns, *(_filled(row) for row in table.rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _filled(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(printable(" ".join(cell.split()), keep="") or _NOTHING for cell in row)


def _show_rich(table: Table) -> None:
    from rich.console import Console  # noqa: PLC0415  # costs 50 ms, which scripts need not pay
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = RichTable(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in table.columns:
        drawn.add_column(column, no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in _filled(row)))
    # A row that is too long goes on in the next line, as with kubectl; narrow columns help nobody.
    widest = max(len(line) for line in plain_lines(table)) + 4
    Console(width=max(widest, Console().width)).print(drawn)
