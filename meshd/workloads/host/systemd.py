"""The manager of this host, by way of systemctl(1): its knowledge of units, and its jobs."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from meshd.base.disk import Disk, sync_directory, temporary, write_whole
from meshd.base.errors import SystemRefusedError
from meshd.base.numbers import whole
from meshd.workloads.host import hold_units
from meshd.workloads.host.hold_units import Preparation, hold_of
from meshd.workloads.host.units import SLICE_PREFIX, cgroup_of, slice_of

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
    "InvocationID",
    "IPAddressAllow",
    "IPAddressDeny",
    "NeedDaemonReload",
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
    """A unit as systemd knows it."""

    asked: str
    """The name by which systemd was asked for it, perhaps an alias."""
    properties: Mapping[str, str]

    @property
    def name(self) -> str:
        """Return the unit's own name: systemd.unit(5), "aliases"."""
        return self.properties.get("Id") or self.asked

    @property
    def names(self) -> frozenset[str]:
        """Return all names of the unit, aliases among them."""
        return frozenset((self.asked, self.name, *self.properties.get("Names", "").split()))

    @property
    def load_state(self) -> str:
        """Return ``loaded``, ``masked``, ``not-found`` or another load state."""
        return self.properties.get("LoadState", "")

    @property
    def exists(self) -> bool:
        return self.load_state == "loaded"

    @property
    def state(self) -> str:
        """Return ``active``, ``activating``, ``failed`` or another active state."""
        return self.properties.get("ActiveState", "")

    @property
    def result(self) -> str:
        """Return why the last run ended, such as ``success`` or ``timeout``."""
        return self.properties.get("Result", "")

    @property
    def cgroup(self) -> str:
        """Return the cgroup of the processes; another slice may count from the next start."""
        return self.properties.get("ControlGroup", "")

    @property
    def run(self) -> str:
        """Return what tells its present run from others; empty if it does not run."""
        return self.properties.get("InvocationID", "") if self.active else ""

    @property
    def user(self) -> int:
        """Return the user that the unit runs as; 0: root, or it does not run."""
        number = whole(self.properties.get("UID", ""), _NO_USER - 1)
        return number or 0

    @property
    def sockets(self) -> frozenset[str]:
        """Return the socket units in systemd's memory that pass connections to the unit."""
        triggers = self.properties.get("TriggeredBy", "").split()
        return frozenset(one for one in triggers if one.endswith(".socket"))

    @property
    def triggers(self) -> tuple[str, ...]:
        """Return the units to which a socket passes connections."""
        return tuple(self.properties.get("Triggers", "").split())

    def says(self, property_: str) -> bool:
        """Return whether a setting that is yes or no is yes."""
        return self.properties.get(property_) == "yes"

    @property
    def active(self) -> bool:
        return self.state in {"active", "activating", "reloading"}

    @property
    def is_in_slice(self) -> bool:
        return self.cgroup.startswith(f"/{cgroup_of(self.asked)}/")

    @property
    def is_outside(self) -> bool:
        """Return whether the unit runs and was not restarted since it was enrolled."""
        return self.active and bool(self.cgroup) and not self.is_in_slice


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """The changes of ``prepare`` that still exist."""

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
        """Return the units, with one call. Raises SystemRefusedError."""
        return _show(units, _PROPERTIES)

    def all_sockets(self) -> tuple[Unit, ...]:
        """Return all sockets, in memory or not. Raises SystemRefusedError."""
        listing = ("list-unit-files", "--type=socket", "--plain", "--no-legend")
        names = {line.split(" ")[0] for line in _systemctl(*listing).splitlines()}
        return self._show_sockets(one for one in names if "@." not in one)

    def on_network(self, sockets: Iterable[str]) -> frozenset[str]:
        """Return the sockets that listen on a network. Raises SystemRefusedError."""
        shown = self._show_sockets(sockets)
        return frozenset(one.asked for one in shown if listens_on_network(one))

    def _show_sockets(self, names: Iterable[str]) -> tuple[Unit, ...]:
        return _show(sorted(names), ("Id", "Triggers", "Listen"))

    # ---- what is enrolled

    def prepare(self, *wanted: Preparation) -> None:
        """Make the units' slices and holds, which apply from their next start on.

        The same again does nothing. Raises SystemRefusedError, InvalidInputError.
        """
        changed = [self._write(one.unit, hold_units.files(one)) for one in wanted]
        units = {name for one in wanted for name in (one.unit, *one.sockets)}
        if any(changed) or self._is_stale(units):
            _systemctl("daemon-reload")
        _systemctl("start", *(slice_of(one.unit) for one in wanted))

    def is_prepared(self, unit: str) -> bool:
        return hold_units.unit_drop_in(unit) in self._paths(unit)

    def has_traces(self, unit: str) -> bool:
        """Return whether any file of the unit is there, be it that not all are."""
        return bool(self._paths(unit))

    def prepared(self) -> tuple[str, ...]:
        """Return all prepared units, by the names under which they were enrolled."""
        found = self._units.glob(hold_units.unit_drop_in("*.service"))
        return tuple(sorted(path.parent.name.removesuffix(".d") for path in found))

    def preparation_of(self, unit: str) -> Prepared:
        paths = self._paths(unit)
        return Prepared(hold_of(unit) in paths, hold_units.held_sockets(unit, paths))

    def undo(self, unit: str) -> None:
        """Remove every trace of ``prepare`` but the slice, as long as the service runs in it."""
        sockets = self.look(unit).sockets
        if self._write(unit, {}) or self._is_stale({unit, *sockets}):
            _systemctl("daemon-reload")

    def _is_stale(self, units: Iterable[str]) -> bool:
        """Return whether systemd has not read the units' files as they are: whoever wrote them may
        have died before it could say so. Raises SystemRefusedError."""
        return any(one.says("NeedDaemonReload") for one in self.look_at(sorted(units)))

    # ---- what is to run

    def restart(self, unit: str) -> None:
        """Restart a unit that runs. Raises SystemRefusedError."""
        _systemctl("try-restart", "--", unit)

    def start_again(self, *units: str) -> None:
        """Start units, however often they have failed, without waiting. Raises
        SystemRefusedError."""
        _systemctl("reset-failed", "--", *units)
        _systemctl("start", "--no-block", "--", *units)

    def stop_slice(self, unit: str) -> None:
        """Stop the slice once nothing runs in it: it would take that along."""
        if self.look(unit).is_in_slice:
            return
        _systemctl("stop", slice_of(unit))
        listing = ("list-units", "--all", "--plain", "--no-legend", f"{SLICE_PREFIX}-*.slice")
        if not _systemctl(*listing).strip():
            _systemctl("stop", f"{SLICE_PREFIX}.slice")

    # ---- files

    def _paths(self, unit: str) -> frozenset[str]:
        """Return the existing files of the unit, below the directory of units."""
        own = hold_units.own_paths(unit)
        found = {path for path in own if (self._units / path).is_file()}
        of_sockets = self._units.glob(hold_units.socket_drop_in(unit, "*.socket"))
        return frozenset(found | {str(path.relative_to(self._units)) for path in of_sockets})

    def _write(self, unit: str, texts: Mapping[str, str]) -> bool:
        """Write these and no other files of the unit; return whether any changed. Raises
        SystemRefusedError."""
        changed = False
        place = self._units
        try:
            for path in hold_units.in_order_of_removal(unit, self._paths(unit) - texts.keys()):
                place, changed = self._units / path, True
                _remove(place)
            for path, text in texts.items():
                place = self._units / path
                changed |= _replace(place, text)
            if not texts:
                place = self._units
                self._clean_up(unit)
        except OSError as error:
            raise SystemRefusedError(f"{place}: cannot be written: {error.strerror}") from None
        return changed

    def _clean_up(self, unit: str) -> None:
        """Remove what a process that was killed has left of the unit's files. Raises OSError."""
        for path in hold_units.own_paths(unit):
            _remove(temporary(self._units / path))
        sync_directory(Disk(), self._units)


def described(unit: str, text: str) -> Unit:
    """Return the unit that systemctl(1) describes: a list has a line for each item. Pure."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name] = f"{found[name]}\n{value}" if name in found else value
    return Unit(unit, found)


def listens_on_network(socket: Unit) -> bool:
    """Return whether a socket listens on a network, not only on a path or an abstract name.
    Pure."""
    listeners = socket.properties.get("Listen", "").splitlines()
    return any(not _LOCAL.match(one) for one in listeners)


def passing_to(unit: Unit, sockets: Iterable[Unit]) -> tuple[str, ...]:
    """Return the sockets that pass connections of a network to the unit. Pure."""
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
    """Remove a file if it is there, and its directory of drop-ins if that is empty then."""
    path.unlink(missing_ok=True)
    directory = path.parent
    if directory.suffix == ".d" and directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _replace(path: Path, text: str) -> bool:
    """Replace a file at once, since systemd may read it at any moment; return whether it
    changed."""
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
        return False
    path.parent.mkdir(mode=0o755, exist_ok=True)
    write_whole(Disk(), path, text.encode(), 0o644)
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
