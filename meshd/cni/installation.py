"""The plugin's program and its place in the chain, put in force in a runtime's directories.

Other tools write the chain anew when they like, and so it is looked at again each second. The
program is there before the chain names it, and the chain does not name it any more before it goes:
a runtime that finds no program can start no container.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from meshd.base import journal
from meshd.base.disk import replace
from meshd.base.errors import MeshdError, SystemRefusedError
from meshd.base.threads import in_thread
from meshd.cni import chain
from meshd.settings import KubernetesSettings

_LOOK: Final = 1.0
"""Seconds between looks at the directories."""
_MOST: Final = 1024 * 1024
"""Bytes of a file that is looked at."""
_SOURCE: Final = Path(__file__).with_name("shim.py")
_log: Final = logging.getLogger(__name__)


def program(socket: Path, excluded: Collection[str], *, fails_open: bool = False) -> str:
    """Return the text of the plugin's program for one meshd."""
    lines = _SOURCE.read_text(encoding="utf-8").splitlines()
    values = {"SOCKET": str(socket), "EXCLUDED": tuple(excluded), "FAILS_OPEN": fails_open}
    for name, value in values.items():
        number = next(at for at, line in enumerate(lines) if line.startswith(f"{name} = "))
        lines[number] = f"{name} = {value!r}"
    interpreter = os.path.realpath(sys.executable)
    return "\n".join((f"#!{interpreter} -IS", *lines)) + "\n"


class Installation:
    """The plugin in the directories of the settings, whose door is ``socket``."""

    def __init__(
        self, settings: KubernetesSettings, socket: Path, *, fails_open: bool = False
    ) -> None:
        """Look nowhere yet. ``fails_open``: containers begin while meshd is away."""
        self._configuration = Path(settings.cni_configuration)
        self._program = Path(settings.cni_programs) / chain.PLUGIN
        self._socket = socket
        self._text = program(socket, settings.exclude_namespaces, fails_open=fails_open)
        self._said = ""

    async def run(self) -> None:
        """Keep it installed until cancelled."""
        while True:
            try:
                problem = await in_thread("installing the CNI plugin", self.install)
            except MeshdError as error:
                problem = str(error)
            self._say(problem)
            await asyncio.sleep(_LOOK)

    async def end(self) -> None:
        """Take it out of force, if it is this meshd's; say so if that cannot be."""
        try:
            await in_thread("removing the CNI plugin", self.remove)
        except MeshdError as error:
            self._say(str(error))

    def _say(self, problem: str) -> None:
        if problem and problem != self._said:
            journal.event(_log, logging.ERROR, "cni", "%s", problem)
        elif not problem and self._said:
            journal.event(_log, logging.INFO, "cni", "the CNI plugin is installed")
        self._said = problem

    def install(self) -> str:
        """Put it in force where it is not; return why containers are started without it. Raises
        SystemRefusedError."""
        if _text_of(self._program) != self._text:
            replace(self._program, self._text.encode(), 0o755)
        files = self._files()
        self._write(chain.with_plugin(files))
        if chain.first(files):
            return ""
        return f"{self._configuration}: no CNI configuration yet; install a network for containers"

    def remove(self) -> bool:
        """Take it out of force, if it is this meshd's; return whether it was. Raises
        SystemRefusedError."""
        if not self.is_ours:
            return False
        self._write(chain.without_plugin(self._files()))
        try:
            self._program.unlink()
        except OSError as error:
            reason = f"{self._program}: cannot be removed: {error.strerror}"
            raise SystemRefusedError(reason) from None
        return True

    @property
    def is_ours(self) -> bool:
        """Return whether the program that is installed belongs to this meshd."""
        return f"SOCKET = {str(self._socket)!r}" in _text_of(self._program).splitlines()

    def _files(self) -> dict[str, bytes]:
        """Raises SystemRefusedError."""
        if not self._configuration.is_dir():
            return {}
        try:
            return {
                path.name: path.read_bytes()
                for path in self._configuration.iterdir()
                if path.is_file() and path.stat().st_size <= _MOST
            }
        except OSError as error:
            reason = f"{error.filename}: cannot be read: {error.strerror}"
            raise SystemRefusedError(reason) from None

    def _write(self, changes: Mapping[str, bytes | None]) -> None:
        """Write files, and then remove others."""
        for name, content in changes.items():
            if content is not None:
                replace(self._configuration / name, content, 0o644)
                journal.event(_log, logging.INFO, "cni", "%s is changed", name)
        for name, content in changes.items():
            if content is None:
                (self._configuration / name).unlink(missing_ok=True)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
