"""The node's resolvers, with those for wildcards, as children of the supervisor.

They are part of the data path: like the proxies they outlive the supervisor, and the service where
proxies do, and the next supervisor adopts them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meshd.base import journal
from meshd.base.backoff import Backoff
from meshd.base.errors import MeshdError
from meshd.resolver import command
from meshd.resolver.command import NAME, is_for_wildcards, view_of
from meshd.resolver.files import NOBODY, WILDCARDS, read
from meshd.settings import Settings
from meshd.supervisor.child import Policy
from meshd.supervisor.privileges import stranger_command
from meshd.supervisor.process import command_line
from meshd.supervisor.service import scoped

if TYPE_CHECKING:
    from meshd.supervisor.record import Entry


class Resolver:
    """All resolvers, by name; each is started with the settings of that time."""

    policy: Final = Policy(restarts=Backoff(0.02, 1.0), settled=0.5, grace=1.2)
    """Nobody else answers meanwhile, so whatever was its end, it is started again at once if it had
    begun to answer, and soon if not."""

    def __init__(self, directory: Path, slice_name: str) -> None:
        self._directory = directory
        self._slice = slice_name
        self._known: dict[str, str | None] = {}
        """What the one of a name has learnt at its start; None: that is not known."""

    @property
    def commands(self) -> Mapping[str, Sequence[str]]:
        """Return the names of resolvers of namespaces; their command lines are known at their
        start."""
        return dict.fromkeys(command.of_namespaces(self._directory), ())

    def command(self, name: str, settings: Settings) -> tuple[str, ...]:
        """Raises MeshdError."""
        arguments = command.arguments(name, settings.mesh, self._directory)
        started = stranger_command((command.find(), *arguments))
        if self._slice:
            started = scoped(self._slice, name, started)
        self._known[name] = self._read(name)
        # Until it knows what that signal means, it has read nothing that could be outdated.
        return ("env", "--ignore-signal=HUP", *started)

    def to_adopt(self, name: str, left: Iterable[Entry], settings: Settings) -> Entry | None:
        """Return a running resolver that was started with the present settings."""
        with contextlib.suppress(MeshdError):
            wanted = command.arguments(name, settings.mesh, self._directory)
            for entry in left:
                # Its last argument is followed by an empty string.
                running = command_line(entry.identity.pid)
                if entry.name == name and running[-len(wanted) - 1 : -1] == wanted:
                    is_older = not is_for_wildcards(name) or self._is_older(name, entry.since)
                    self._known[name] = self._read(name) if is_older else None
                    return entry
        return None

    def is_outdated(self, name: str) -> bool:
        """Return whether the resolver has to be restarted: it reads some files only at its
        start."""
        return name in self._known and self._read(name) != self._known[name]

    def _read(self, name: str) -> str:
        """Return what a resolver reads at its start: its wildcards, or whether upstreams answer."""
        if is_for_wildcards(name):
            return read(self._path(name)) or ""
        return NOBODY if name == NAME and (self._directory / NOBODY).exists() else ""

    def _is_older(self, name: str, moment: float) -> bool:
        try:
            return self._path(name).stat().st_mtime < moment
        except OSError:
            return True

    def _path(self, name: str) -> Path:
        """Raises SystemRefusedError when the namespace has none any more."""
        return view_of(name, self._directory).directory / WILDCARDS


def pass_on(name: str, line: str) -> None:
    if not command.is_routine(line):
        journal.relay(name, line)
