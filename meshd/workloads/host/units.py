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
    if _NEVER.fullmatch(name):
        raise InvalidInputError(
            f"{name}.service is never captured: the host itself would depend on the mesh"
        )
    return f"{name}.service"


def workload_name(unit: str) -> str:
    """Return the name as part of a uid and of a label: ``web@1.service`` is ``web-1``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", unit.removesuffix(".service")).strip("-.").lower()


def slice_of(unit: str) -> str:
    """Return the slice, which differs for different units."""
    name = unit.removesuffix(".service")
    plain = re.sub(r"[^A-Za-z0-9.]", "_", name)
    if plain != name:
        plain += "_" + hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{SLICE_PREFIX}-{plain}.slice"


def cgroup_of(unit: str) -> str:
    """Return the cgroup at which systemd puts that slice."""
    return f"{SLICE_PREFIX}.slice/{slice_of(unit)}"
