"""The node's resolver as one of the supervisor's children."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from meshd import journal
from meshd.resolver import command
from meshd.resolver.files import WILDCARDS, read
from meshd.settings import Settings
from meshd.supervisor.privileges import stranger_command

NAME: Final = "resolver"


class Resolver:
    """Started with what the settings say at that time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._wildcards: str | None = None

    def command(self, settings: Settings) -> tuple[str, ...]:
        """Raises MeshdError."""
        self._wildcards = self._read()
        # Until it knows what that signal means, it has read nothing that could be outdated.
        program = ("env", "--ignore-signal=HUP", command.find())
        return stranger_command((*program, *command.arguments(settings.mesh, self._directory)))

    @property
    def is_outdated(self) -> bool:
        """It has to be started again, since it reads wildcards only then."""
        return self._read() != self._wildcards

    def _read(self) -> str:
        return read(self._directory / WILDCARDS) or ""


def pass_on(line: str) -> None:
    if not command.is_routine(line):
        journal.relay(NAME, line)
