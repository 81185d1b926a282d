"""The node's resolver, and the one for wildcards beside it, as children of the supervisor.

They are part of the data path: like the proxies they outlive the supervisor, and the service where
those do, and the next supervisor goes on with them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meshd import journal
from meshd.errors import MeshdError
from meshd.resolver import command
from meshd.resolver.command import WILDCARDS_NAME
from meshd.resolver.files import WILDCARDS, read
from meshd.settings import Settings
from meshd.supervisor.child import Policy
from meshd.supervisor.privileges import stranger_command
from meshd.supervisor.process import command_line
from meshd.supervisor.service import scoped

if TYPE_CHECKING:
    from meshd.supervisor.record import Entry


class Resolver:
    """Both, by name. Started with what the settings say at that time."""

    policy: Final = Policy(first_pause=0.02, longest_pause=1.0, settled=0.5, grace=1.2)
    """Nobody else answers meanwhile, so whatever was its end, it is started again at once if it had
    begun to answer, and soon if not."""

    def __init__(self, directory: Path, slice_name: str) -> None:
        self._directory = directory
        self._slice = slice_name
        self._wildcards: str | None = None

    def command(self, name: str, settings: Settings) -> tuple[str, ...]:
        """Raises MeshdError."""
        arguments = command.arguments(name, settings.mesh, self._directory)
        started = stranger_command((command.find(), *arguments))
        if self._slice:
            started = scoped(self._slice, name, started)
        if name == WILDCARDS_NAME:
            self._wildcards = self._read()
        # Until it knows what that signal means, it has read nothing that could be outdated.
        return ("env", "--ignore-signal=HUP", *started)

    def to_adopt(self, name: str, left: Iterable[Entry], settings: Settings) -> Entry | None:
        """One that runs already, with the settings as they are now."""
        with contextlib.suppress(MeshdError):
            wanted = command.arguments(name, settings.mesh, self._directory)
            for entry in left:
                # Its last argument is followed by an empty string.
                running = command_line(entry.identity.pid)
                if entry.name == name and running[-len(wanted) - 1 : -1] == wanted:
                    if name == WILDCARDS_NAME:
                        self._wildcards = self._read() if self._is_older(entry.since) else None
                    return entry
        return None

    @property
    def is_outdated(self) -> bool:
        """The one for wildcards has to be started again, since it reads them only then."""
        return self._read() != self._wildcards

    def _read(self) -> str:
        return read(self._directory / WILDCARDS) or ""

    def _is_older(self, moment: float) -> bool:
        try:
            return (self._directory / WILDCARDS).stat().st_mtime < moment
        except OSError:
            return True


def pass_on(name: str, line: str) -> None:
    if not command.is_routine(line):
        journal.relay(name, line)
