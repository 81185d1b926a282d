"""Makes systemd hold enrolled units before they start, when they are enrolled and after an
upgrade."""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from meshd.workloads.host.hold_units import Preparation
from meshd.workloads.host.systemd import Systemd, passing_to


def prepare_all() -> tuple[str, ...]:
    """Write the files of all enrolled units as this version of meshd writes them.

    Returns what is to be warned of, a line each. Raises SystemRefusedError, InvalidInputError.
    """
    systemd = Systemd()
    units = systemd.prepared()
    return prepare(systemd, units) if units else ()


def prepare(systemd: Systemd, units: Sequence[str]) -> tuple[str, ...]:
    """Returns what is to be warned of, a line each.

    Raises SystemRefusedError, InvalidInputError.
    """
    meshctl = own_meshctl()
    sockets = systemd.all_sockets()
    systemd.prepare(
        *(
            Preparation(
                unit=unit.asked,
                meshctl=str(meshctl),
                home=os.environ.get("MESHD_HOME", ""),
                sockets=passing_to(unit, sockets),
                early=unit.exists and not unit.says("DefaultDependencies"),
            )
            for unit in systemd.look_at(units)
        )
    )
    return tuple(
        f"root runs {meshctl} before an enrolled service starts, and user {user} can change {path}"
        for path, user in changeable(meshctl)
    )


def own_meshctl() -> Path:
    """Return the path of the meshctl that was installed with this meshd."""
    return Path(sys.executable).absolute().with_name("meshctl")


def changeable(program: Path) -> Iterator[tuple[Path, str]]:
    """Yield each path to a program that users other than root could replace, with the user."""
    for path in dict.fromkeys(
        step for end in (program, program.resolve()) for step in (end, *end.parents)
    ):
        try:
            found = path.stat()
        except OSError:
            continue
        if found.st_uid != 0:
            yield path, _user(found.st_uid)
        elif found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            yield path, "nobody"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
