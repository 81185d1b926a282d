"""The demo's output: titles, commands, their output, and the verdicts."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

_MOST_LINES: Final = 24
_WIDTH: Final = 160
"""Columns of what a command printed; the rest of a line is left out."""


def trimmed(text: str, most: int = _MOST_LINES, width: int = _WIDTH) -> Iterator[str]:
    """Yield the lines that are shown of a command's output. Pure."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    left_out = len(lines) - most
    for line in lines[: most - 1 if left_out > 0 else most]:
        yield line if len(line) <= width else f"{line[: width - 1]}…"
    if left_out > 0:
        yield f"… {left_out + 1} more lines"


class Terminal:
    def __init__(self) -> None:
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def title(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, "bold cyan"))

    def say(self, text: str) -> None:
        self._console.print(Text(f"  {text}"))

    def command(self, line: str) -> None:
        self._console.print(Text(f"  $ {line}", "bold"))

    def output(self, text: str) -> None:
        for line in trimmed(text):
            self._console.print(Text(f"    {line}", "bright_black"))

    def verdict(self, good: bool, text: str) -> None:
        mark, style = ("✓", "green") if good else ("✗", "bold red")
        self._console.print(Text(f"  {mark} {text}", style))

    @contextlib.contextmanager
    def waiting(self, what: str) -> Generator[None]:
        """Show a timer on a terminal for as long as a step takes."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as progress:
            progress.add_task(f"  {next(trimmed(what, 1, 60), '')}", total=None)
            yield
