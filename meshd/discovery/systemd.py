"""The manager of this host, by way of systemctl(1): what it knows of units, what it has to do."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from meshd.discovery import hold_units
from meshd.discovery.hold_units import Preparation, hold_of
from meshd.discovery.units import SLICE_PREFIX, cgroup_of, slice_of
from meshd.errors import SystemRefusedError
from meshd.model.numbers import whole

UNITS: Final = Path("/etc/systemd/system")
_TIMEOUT: Final = 120.0
"""Seconds that systemd may take to start a service."""
_PROPERTIES: Final = (
    "Id",
    "LoadState",
    "Names",
    "ActiveState",
    "Result",
    "ControlGroup",
    "DefaultDependencies",
    "IPAddressAllow",
    "IPAddressDeny",
    "NetworkNamespacePath",
    "PrivateNetwork",
    "Transient",
    "TriggeredBy",
    "UID",
)
_NO_USER: Final = 2**32 - 1
_LOCAL: Final = re.compile(r"[/@]|.*\((Netlink|FIFO|Special|MessageQueue|USBFunction)\)$")
"""What a socket listens at that no other machine can reach: systemd.socket(5)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """What systemd knows of a unit."""

    asked: str
    """The name by which systemd was asked for it, perhaps an alias."""
    properties: Mapping[str, str]

    @property
    def name(self) -> str:
        """Its own: systemd.unit(5), "aliases"."""
        return self.properties.get("Id") or self.asked

    @property
    def load_state(self) -> str:
        """``loaded``, ``masked``, ``not-found`` …"""
        return self.properties.get("LoadState", "")

    @property
    def exists(self) -> bool:
        return self.load_state == "loaded"

    @property
    def state(self) -> str:
        """``active``, ``activating``, ``failed`` …"""
        return self.properties.get("ActiveState", "")

    @property
    def result(self) -> str:
        """Why its last run ended: ``success``, ``timeout`` …"""
        return self.properties.get("Result", "")

    @property
    def cgroup(self) -> str:
        """Where its processes are; its slice may be another already, which counts from its next
        start."""
        return self.properties.get("ControlGroup", "")

    @property
    def user(self) -> int:
        """As which it runs; 0: root, or it does not run."""
        number = whole(self.properties.get("UID", ""), _NO_USER - 1)
        return number or 0

    @property
    def sockets(self) -> frozenset[str]:
        """Socket units that pass connections to it, of those that systemd has in memory."""
        triggers = self.properties.get("TriggeredBy", "").split()
        return frozenset(one for one in triggers if one.endswith(".socket"))

    @property
    def triggers(self) -> tuple[str, ...]:
        """Of a socket: whom it passes connections to."""
        return tuple(self.properties.get("Triggers", "").split())

    def says(self, property_: str) -> bool:
        """Whether a setting that is yes or no is yes."""
        return self.properties.get(property_) == "yes"

    @property
    def active(self) -> bool:
        return self.state in {"active", "activating", "reloading"}

    @property
    def is_in_slice(self) -> bool:
        return self.cgroup.startswith(f"/{cgroup_of(self.asked)}/")

    @property
    def is_outside(self) -> bool:
        """It runs, and was not started again since it was enrolled."""
        return self.active and bool(self.cgroup) and not self.is_in_slice


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """What ``prepare`` has done of which something is left."""

    is_held: bool
    """There is a unit that holds it before it starts."""
    sockets: frozenset[str]
    """Socket units that are held with it."""


class Systemd:
    """The manager, and the files that it reads."""

    def __init__(self, units: Path = UNITS) -> None:
        self._units = units

    def look(self, unit: str) -> Unit:
        """Raises SystemRefusedError."""
        return self.look_at((unit,))[0]

    def look_at(self, units: Sequence[str]) -> tuple[Unit, ...]:
        """All with one question. Raises SystemRefusedError."""
        return _show(units, _PROPERTIES)

    def all_sockets(self) -> tuple[Unit, ...]:
        """Whether or not they are in memory. Raises SystemRefusedError."""
        listing = ("list-unit-files", "--type=socket", "--plain", "--no-legend")
        names = {line.split(" ")[0] for line in _systemctl(*listing).splitlines()}
        return self._show_sockets(one for one in names if "@." not in one)

    def on_network(self, sockets: Iterable[str]) -> frozenset[str]:
        """Those that listen for a network. Raises SystemRefusedError."""
        shown = self._show_sockets(sockets)
        return frozenset(one.asked for one in shown if listens_on_network(one))

    def _show_sockets(self, names: Iterable[str]) -> tuple[Unit, ...]:
        return _show(sorted(names), ("Id", "Triggers", "Listen"))

    # ---- what is enrolled

    def prepare(self, *wanted: Preparation) -> None:
        """Their slices are there, and from their next start on they will be in them, and be held
        before.

        The same again does nothing. Raises SystemRefusedError, InvalidInputError.
        """
        changed = [self._write(one.unit, hold_units.files(one)) for one in wanted]
        if any(changed):
            _systemctl("daemon-reload")
        _systemctl("start", *(slice_of(one.unit) for one in wanted))

    def is_prepared(self, unit: str) -> bool:
        return hold_units.unit_drop_in(unit) in self._paths(unit)

    def prepared(self) -> tuple[str, ...]:
        """All units that are, by the names under which they were enrolled."""
        found = self._units.glob(hold_units.unit_drop_in("*.service"))
        return tuple(sorted(path.parent.name.removesuffix(".d") for path in found))

    def preparation_of(self, unit: str) -> Prepared:
        paths = self._paths(unit)
        return Prepared(hold_of(unit) in paths, hold_units.held_sockets(unit, paths))

    def undo(self, unit: str) -> None:
        """No trace of ``prepare`` but the slice, as long as the service runs in it."""
        if self._write(unit, {}):
            _systemctl("daemon-reload")

    # ---- what is to run

    def restart(self, unit: str) -> None:
        """If it runs. Raises SystemRefusedError."""
        _systemctl("try-restart", "--", unit)

    def start_again(self, *units: str) -> None:
        """However often they have failed. Does not wait for them. Raises SystemRefusedError."""
        _systemctl("reset-failed", "--", *units)
        _systemctl("start", "--no-block", "--", *units)

    def stop_slice(self, unit: str) -> None:
        """Once nothing runs in it: it would take that along."""
        if self.look(unit).is_in_slice:
            return
        _systemctl("stop", slice_of(unit))
        listing = ("list-units", "--all", "--plain", "--no-legend", f"{SLICE_PREFIX}-*.slice")
        if not _systemctl(*listing).strip():
            _systemctl("stop", f"{SLICE_PREFIX}.slice")

    # ---- files

    def _paths(self, unit: str) -> frozenset[str]:
        """Of the unit's files that there are, below the directory of units."""
        own = hold_units.own_paths(unit)
        found = {path for path in own if (self._units / path).is_file()}
        of_sockets = self._units.glob(hold_units.socket_drop_in(unit, "*.socket"))
        return frozenset(found | {str(path.relative_to(self._units)) for path in of_sockets})

    def _write(self, unit: str, texts: Mapping[str, str]) -> bool:
        """These and no other files of the unit. Whether anything has changed.

        Raises SystemRefusedError.
        """
        changed = False
        place = self._units
        try:
            for path in self._paths(unit) - texts.keys():
                place, changed = self._units / path, True
                _remove(place)
            for path, text in texts.items():
                place = self._units / path
                changed |= _replace(place, text)
        except OSError as error:
            raise SystemRefusedError(f"{place}: cannot be written: {error.strerror}") from None
        return changed


def described(unit: str, text: str) -> Unit:
    """What systemctl(1) shows of it: a list has a line for each item. Pure."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name] = f"{found[name]}\n{value}" if name in found else value
    return Unit(unit, found)


def listens_on_network(socket: Unit) -> bool:
    """And not only at a path or an abstract name on this host. Pure."""
    listeners = socket.properties.get("Listen", "").splitlines()
    return any(not _LOCAL.match(one) for one in listeners)


def passing_to(unit: Unit, sockets: Iterable[Unit]) -> tuple[str, ...]:
    """Those of the sockets that pass connections of a network to the unit. Pure."""
    return tuple(
        sorted(
            one.name
            for one in sockets
            if listens_on_network(one) and (one.name in unit.sockets or unit.name in one.triggers)
        )
    )


def _show(units: Sequence[str], properties: Sequence[str]) -> tuple[Unit, ...]:
    """Raises SystemRefusedError."""
    if not units:
        return ()
    shown = _systemctl("show", f"--property={','.join(properties)}", "--", *units)
    return tuple(described(*pair) for pair in zip(units, shown.split("\n\n"), strict=True))


def _remove(path: Path) -> None:
    """And the directory of drop-ins that it was the last one in."""
    path.unlink()
    if path.parent.suffix == ".d" and not any(path.parent.iterdir()):
        path.parent.rmdir()


def _replace(path: Path, text: str) -> bool:
    """Whether it was another text, or none. At once: systemd may read it at any moment."""
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
        return False
    path.parent.mkdir(mode=0o755, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)
    return True


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
