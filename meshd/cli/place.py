"""The argument of ``enroll``: a systemd unit, other processes of the host, or a network
namespace."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

import typer

from meshd import wire
from meshd.base import own_addresses
from meshd.base.errors import InvalidInputError, SystemRefusedError
from meshd.capture.host import cgroups
from meshd.capture.pods.namespaces import Pins
from meshd.capture.rules import inside
from meshd.model.workload import HostService
from meshd.workloads.host import units
from meshd.workloads.host.systemd import Systemd, Unit


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The place of a workload's processes; one of the three fields is set."""

    unit: str = ""
    cgroup: str = ""
    netns: str = ""
    """Path of a network namespace that is not the host's."""
    aliases: tuple[str, ...] = ()
    """All names of the unit."""

    def __str__(self) -> str:
        return self.unit or self.cgroup or self.netns

    @property
    def workload_name(self) -> str:
        """Raises InvalidInputError when nothing of it is fit for a name."""
        last = str(self).rpartition("/")[2]
        if self.netns.startswith("/proc/") or not (name := units.workload_name(last)):
            raise InvalidInputError(f"{self} gives no name for the workload; give --name")
        return name

    @property
    def is_on_host(self) -> bool:
        """Return whether the workload is in the host's own network namespace."""
        return not self.netns

    def host(self, *, address_asked: bool) -> HostService | None:
        if not self.is_on_host:
            return None
        cgroup = self.cgroup or units.cgroup_of(self.unit)
        return HostService(cgroup=cgroup, unit=self.unit, address_asked=address_asked)

    def doubts(self, *, address_asked: bool) -> tuple[str, ...]:
        """Return why the workload has no address, or an address that may be wrong."""
        if address_asked:
            return ()
        if not self.netns:
            return _unreachable("this host")
        with inside.entered(Path(self.netns)):
            return _unreachable(self.netns)

    @property
    def cookie(self) -> int:
        """Return the namespace's cookie, see ``Workload.netns_cookie``. Raises NotReadyError or
        InvalidInputError."""
        return inside.cookie_of(Path(self.netns)) if self.netns else 0

    def check(self) -> str:
        """Return the present run of a unit; nothing for other places.

        Raises InvalidInputError or NotReadyError when there is no such thing on this host.
        """
        if self.netns:
            os.close(inside.open_namespace(Path(self.netns)))
        if self.unit:
            unit = Systemd().look(self.unit)
            if problem := unfit(unit):
                raise InvalidInputError(f"{self.unit} {problem}")
            return unit.run
        if self.cgroup and not cgroups.identify(self.cgroup):
            raise InvalidInputError(
                f"there is no cgroup {self.cgroup} below {cgroups.root()}: start its "
                "processes first"
            )
        return ""

    def holds(self, row: wire.WorkloadStatus | wire.EnrollmentStatus) -> bool:
        """Return whether the place is that of the workload."""
        if self.netns:
            return row.netns == self.netns
        if self.unit:
            return row.unit in {self.unit, *self.aliases}
        return row.cgroup == self.cgroup

    def as_in(self, row: wire.WorkloadStatus) -> Place:
        """Return the place under the name by which it was enrolled."""
        return dataclasses.replace(self, unit=row.unit)

    def known(self, rows: Iterable[wire.WorkloadStatus]) -> wire.WorkloadStatus | None:
        return next((row for row in rows if self.holds(row)), None)

    def is_still(self, pins: Pins, uid: str) -> bool:
        """Return False for a restarted container, which has a new namespace at its old path."""
        pin = pins.find(uid) if self.netns else None
        return pin is None or pin.inode == Path(self.netns).stat().st_ino


def _unreachable(place: str) -> tuple[str, ...]:
    """Return a line for each address family without a default route; none if one exists."""
    if own_addresses.routed():
        return ()
    if found := own_addresses.preferred():
        way = ", ".join(found)
        return (f"{place} has no default route; others reach it at {way}",)
    return (f"{place} has no address yet and cannot be reached; assign one, or give --address",)


def named(what: str, cgroup: str) -> Place:
    """Return the place that a name means, whether it exists or not. Raises InvalidInputError,
    BadParameter."""
    if bool(what) == bool(cgroup):
        raise typer.BadParameter("name a UNIT, the PATH of a network namespace, or a --cgroup")
    if cgroup:
        return Place(cgroup=cgroup.strip("/"))
    if "/" in what:
        return Place(netns=os.path.normpath(Path(what).absolute()))
    return _of_unit(units.unit_name(what))


def unfit(unit: Unit) -> str:
    """Return why a unit cannot be a service of the mesh; empty if it can. Pure."""
    if unit.load_state == "masked":
        return "is masked: systemctl unmask it first"
    if not unit.exists:
        return (
            "is not a unit of this host's system manager (for a user's unit, enroll its --cgroup)"
        )
    if unit.says("Transient"):
        return "is transient and disappears when it ends: write a unit file"
    if netns := unit.properties.get("NetworkNamespacePath"):
        return f"runs in a network namespace of its own: run meshctl enroll {netns}"
    if unit.says("PrivateNetwork"):
        return "runs in an isolated network namespace (PrivateNetwork=yes)"
    return ""


def _of_unit(asked: str) -> Place:
    """Return a unit under its own name, unless it was enrolled by an alias. Raises
    InvalidInputError."""
    systemd = Systemd()
    try:
        unit = systemd.look(asked)
    except SystemRefusedError:
        return Place(unit=asked)
    aliases = tuple(unit.properties.get("Names", "").split())
    known = next((name for name in (asked, *aliases) if systemd.is_prepared(name)), unit.name)
    return Place(unit=units.unit_name(known), aliases=aliases)
