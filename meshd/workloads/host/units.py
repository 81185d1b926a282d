"""Names of systemd units that are services of the mesh, and of their slices. Pure.

A unit gets a slice of its own, which outlives the service: the rules are bound to a cgroup, and a
service gets a new one each time it starts.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from meshd.base.errors import InvalidInputError

SLICE_PREFIX: Final = "meshd_services"
"""A dash says that a slice is inside another; meshd's own slice is not to be that one."""
_LONGEST: Final = 255 - len(f"{SLICE_PREFIX}-.slice")
"""Characters of the rest of a slice's name: systemd.unit(5)."""
_DIGESTED: Final = re.compile(r"_([0-9a-f]{6}|[0-9a-f]{64})$")
"""The end of a name that may be that of another unit's slice."""
_NEVER: Final = re.compile(
    r"meshd.*|sshd?(@.*)?|systemd-.*|dbus(-broker)?|NetworkManager.*|networking|ifup@.*|dhc.*"
    r"|user(-runtime-dir)?@.*|(.*-)?getty(@.*)?|emergency|rescue"
)
"""Units without which nobody reaches the host any more."""


def unit_name(text: str) -> str:
    """Return the name with its suffix. Raises InvalidInputError if it cannot be a service of the
    mesh."""
    name, dot, kind = text.rpartition(".")
    if not dot or kind not in {"service", "socket", "timer", "slice", "scope", "target", "mount"}:
        name, kind = text, "service"
    if kind == "service" and name.endswith("@"):
        raise InvalidInputError(
            f"{text!r} is a template, not a systemd service; enroll its instances "
            f"{name}NAME.service"
            " (those that a socket with Accept=yes makes for each connection cannot be enrolled)"
        )
    if kind != "service" or not re.fullmatch(r"[A-Za-z0-9:_.@\\-]+", name):
        raise InvalidInputError(f"{text!r} is not a systemd service; enroll NAME.service")
    if name.partition("@")[0].endswith("-"):
        raise InvalidInputError(
            f"{text!r} cannot be enrolled: what systemd reads for it applies to all units whose"
            " names begin so"
        )
    if is_needed(f"{name}.service"):
        raise InvalidInputError(
            f"{name}.service is never captured: the host itself would depend on the mesh"
        )
    return f"{name}.service"


def is_needed(unit: str) -> bool:
    """Return whether nobody might reach the host any more without the unit."""
    return _NEVER.fullmatch(unit.removesuffix(".service")) is not None


def workload_name(unit: str) -> str:
    """Return the name as part of a uid and of a label: ``web@1.service`` is ``web-1``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", unit.removesuffix(".service")).strip("-.").lower()


def slice_of(unit: str) -> str:
    """Return the slice, which differs for different units, unless somebody looks for two names
    whose digests meet: then whoever comes second is refused.

    A dash would put it inside another slice, and rules cannot name a cgroup with a backslash, by
    which systemd itself escapes one. So an underscore stands for whatever is no letter, digit or
    dot, and a digest follows. Records and drop-ins of enrolled units have these names: another one
    would put a unit, after an upgrade, where its traffic is not captured.
    """
    name = unit.removesuffix(".service")
    plain = re.sub(r"[^A-Za-z0-9.]", "_", name)
    digest = hashlib.sha256(name.encode()).hexdigest()
    chosen = plain if plain == name else f"{plain}_{digest[:6]}"
    if len(chosen) > _LONGEST or (plain == name and _DIGESTED.search(name)):
        chosen = f"{plain[:100]}_{digest}"
    return f"{SLICE_PREFIX}-{chosen}.slice"


def cgroup_of(unit: str) -> str:
    """Return the cgroup at which systemd puts that slice."""
    return f"{SLICE_PREFIX}.slice/{slice_of(unit)}"
