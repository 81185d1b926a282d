"""Finds the network namespaces of pods that run already, by the control groups of their processes.

A pod may make groups below its own, of any name: the first one that is a pod's counts. And a
namespace counts only if it has the pod's address, since what the number of a process meant a moment
ago may be another process now.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from meshd.base import own_addresses
from meshd.base.errors import MeshdError
from meshd.capture.rules import inside
from meshd.wire.locating import Place

_PROC: Final = Path("/proc")
_UID: Final = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_OF_SYSTEMD: Final = "kubepods-(?:burstable-|besteffort-)?"
_POD: Final = re.compile(rf"/(?:{_OF_SYSTEMD})?pod({_UID})(?:\.slice)?(?=/|$)")
"""As kubelet names them, with either of its drivers; that of systemd has no dashes in a uid."""


def pod_of(cgroups: str) -> str:
    """Return the uid of the pod whose process has these control groups, a line each; empty: it is
    none's. Pure."""
    for line in cgroups.splitlines():
        if found := _POD.search(line.split(":", 2)[-1]):
            return found[1].replace("_", "-")
    return ""


def processes(wanted: Collection[str], proc: Path = _PROC) -> Iterator[tuple[str, int]]:
    """Yield the processes of pods, the lowest number first: that of its sandbox is older than those
    of its containers."""
    for pid in sorted(int(one.name) for one in proc.iterdir() if one.name.isdigit()):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            uid = pod_of((proc / str(pid) / "cgroup").read_text(encoding="utf-8"))
            if uid in wanted:
                yield uid, pid


def locate(pods: Mapping[str, Collection[str]]) -> dict[str, Place]:
    """Return the namespaces of pods by their uids; ``pods``: the addresses of each. A thread does
    it, and enters namespaces."""
    found: dict[str, Place] = {}
    for uid, pid in processes(pods.keys()):
        if uid in found:
            continue
        path = _PROC / str(pid) / "ns/net"
        with contextlib.suppress(MeshdError, OSError), inside.entered(path):
            if not set(own_addresses.every()).isdisjoint(pods[uid]):
                found[uid] = Place(str(path), inside.own_cookie())
    return found
