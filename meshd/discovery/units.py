"""systemd units that are services of the mesh: names, the drop-in, and asking systemd to follow.

A unit gets a slice of its own, which outlives the service: the rules are bound to a cgroup, and a
service gets a new one each time it starts. Before anything of it runs, ``meshctl capture hold``
sees to it that the rules are there, or that nothing passes until they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from meshd.errors import InvalidInputError, SystemRefusedError

SLICE_PREFIX: Final = "meshd_services"
"""A dash says that a slice is inside another; meshd's own slice is not to be that one."""
DROP_IN: Final = "50-meshd.conf"
UNITS: Final = Path("/etc/systemd/system")
_TIMEOUT: Final = 120.0
"""Seconds that systemd may take to start a service."""
_NEVER: Final = re.compile(
    r"meshd.*|sshd?(@.*)?|systemd-.*|dbus(-broker)?|NetworkManager.*|networking|ifup@.*|dhc.*"
)
"""Units without which nobody reaches the host any more."""


def unit_name(text: str) -> str:
    """With its suffix. Raises InvalidInputError when it can be no service of the mesh."""
    name, dot, kind = text.rpartition(".")
    if not dot or kind not in {"service", "socket", "timer", "slice", "scope", "target", "mount"}:
        name, kind = text, "service"
    if kind != "service" or not re.fullmatch(r"[A-Za-z0-9:_.@\\-]+", name) or name.endswith("@"):
        raise InvalidInputError(f"{text!r} is not a systemd service; enrol NAME.service")
    if _NEVER.fullmatch(name):
        raise InvalidInputError(
            f"{name}.service is never captured: the host itself would depend on the mesh"
        )
    return f"{name}.service"


def workload_name(unit: str) -> str:
    """As it may be part of a uid and of a label: ``web@1.service`` is ``web-1``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", unit.removesuffix(".service")).strip("-.").lower()


def slice_of(unit: str) -> str:
    """Different for different units."""
    name = unit.removesuffix(".service")
    plain = re.sub(r"[^A-Za-z0-9.]", "_", name)
    if plain != name:
        plain += "_" + hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{SLICE_PREFIX}-{plain}.slice"


def cgroup_of(unit: str) -> str:
    """Where systemd puts that slice."""
    return f"{SLICE_PREFIX}.slice/{slice_of(unit)}"


def drop_in(unit: str, meshctl: str) -> str:
    """``ExecCondition`` runs before anything else of the unit, in its cgroup. Without meshd on the
    host it holds nobody up. By 255 the unit fails, for all to see; by any other status it would be
    passed over in silence: systemd.service(5)."""
    return f"""\
# Written by meshctl enroll {unit}; meshctl unenroll {unit} removes it.
[Unit]
Wants=meshd.service
After=meshd.service

[Service]
Slice={slice_of(unit)}
ExecCondition=+/bin/sh -c 'test ! -x {meshctl} || {meshctl} capture hold %n || exit 255'
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """What systemd knows of a unit."""

    name: str
    exists: bool
    state: str
    """``active``, ``activating``, ``failed`` …: ActiveState, systemctl(1)."""
    result: str
    """Why its last run ended: ``success``, ``timeout`` …"""
    cgroup: str
    """Where its processes are; its slice may be another already, which counts from its next start.
    """

    @property
    def active(self) -> bool:
        return self.state in {"active", "activating", "reloading"}

    @property
    def is_in_slice(self) -> bool:
        return self.cgroup.startswith(f"/{cgroup_of(self.name)}/")

    @property
    def is_outside(self) -> bool:
        """It runs, and was not started again since it was enrolled."""
        return self.active and bool(self.cgroup) and not self.is_in_slice


class Systemd:
    """The manager of this host, by way of systemctl."""

    def __init__(self, units: Path = UNITS) -> None:
        self._units = units

    def look(self, unit: str) -> Unit:
        """Raises SystemRefusedError."""
        return self.look_at((unit,))[0]

    def look_at(self, units: Sequence[str]) -> tuple[Unit, ...]:
        """All with one question. Raises SystemRefusedError."""
        properties = "--property=LoadState,ActiveState,Result,ControlGroup"
        blocks = _systemctl("show", properties, "--", *units).split("\n\n")
        return tuple(described(*pair) for pair in zip(units, blocks, strict=True))

    def prepare(self, unit: str, meshctl: str) -> None:
        """Its slice is there, and it will be in it from its next start. Raises SystemRefusedError.

        The same again does nothing.
        """
        path, text = self._path(unit), drop_in(unit, meshctl)
        try:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.parent.mkdir(mode=0o755, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                _systemctl("daemon-reload")
        except OSError as error:
            raise SystemRefusedError(f"{path}: cannot be written: {error.strerror}") from None
        _systemctl("start", slice_of(unit))

    def is_prepared(self, unit: str) -> bool:
        return self._path(unit).exists()

    def undo(self, unit: str) -> None:
        """No trace of ``prepare`` but the slice, as long as the service runs in it."""
        path = self._path(unit)
        if path.exists():
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
            _systemctl("daemon-reload")

    def restart(self, unit: str) -> None:
        """If it runs. Raises SystemRefusedError."""
        _systemctl("try-restart", "--", unit)

    def start_again(self, unit: str) -> None:
        """However often it has failed. Does not wait for it. Raises SystemRefusedError."""
        _systemctl("reset-failed", "--", unit)
        _systemctl("start", "--no-block", "--", unit)

    def stop_slice(self, unit: str) -> None:
        """Once nothing runs in it: it would take that along."""
        if self.look(unit).is_in_slice:
            return
        _systemctl("stop", slice_of(unit))
        listing = ("list-units", "--all", "--plain", "--no-legend", f"{SLICE_PREFIX}-*.slice")
        if not _systemctl(*listing).strip():
            _systemctl("stop", f"{SLICE_PREFIX}.slice")

    def _path(self, unit: str) -> Path:
        return self._units / f"{unit}.d" / DROP_IN


def described(unit: str, text: str) -> Unit:
    """What systemctl(1) shows of it. Pure."""
    lines = (line.partition("=") for line in text.splitlines())
    known = {name: value for name, _, value in lines}
    return Unit(
        unit,
        known.get("LoadState") == "loaded",
        known.get("ActiveState", ""),
        known.get("Result", ""),
        known.get("ControlGroup", ""),
    )


def _systemctl(*words: str) -> str:
    try:
        done = subprocess.run(
            ["systemctl", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SystemRefusedError(f"systemctl {words[0]}: {error}") from None
    if done.returncode != 0:
        raise SystemRefusedError(f"systemctl {' '.join(words)}: {' '.join(done.stderr.split())}")
    return done.stdout
