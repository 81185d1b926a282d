"""A verb whose module is imported only when the verb is used."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand


class Deferred(TyperCommand):
    """A command that loads the real one when it is first used."""

    def __init__(self, name: str, place: str, summary: str) -> None:
        """Name the real command: ``place`` is ``MODULE:NAME`` of a function or a typer app."""
        super().__init__(name, short_help=summary, help=summary, rich_markup_mode=None)
        self._place = place

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        return self._real().make_context(info_name, args, parent=parent, **extra)

    def _real(self) -> Any:
        module, _, name = self._place.partition(":")
        found = getattr(importlib.import_module(module), name)
        outer = typer.Typer(add_completion=False, rich_markup_mode=None)
        if isinstance(found, typer.Typer):
            outer.add_typer(found, name=self.name)
        else:
            outer.command(self.name)(found)
        outer.callback()(_nothing)  # so that even a single command stays a part of a group
        group: Any = typer.main.get_command(outer)
        return group.commands[self.name]


def _nothing() -> None:
    """Do nothing: a group needs a callback."""
