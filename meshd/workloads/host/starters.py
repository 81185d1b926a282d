"""Knows units whose work is to start processes for others in cgroups of their own. Pure.

Enrolling such a unit captures its own traffic, but not that of the processes that it has started.
"""

from __future__ import annotations

import re
from typing import Final

_CONTAINERS: Final = "containers"
_SESSIONS: Final = "sessions"
_STARTERS: Final = (
    (r"docker(\.service)?", _CONTAINERS, r"/system\.slice/docker-.*|/docker/.*"),
    (r"podman.*\.service", _CONTAINERS, r".*/(libpod-|libpod_parent).*"),
    (
        r"containerd\.service",
        _CONTAINERS,
        r"/system\.slice/(nerdctl|cri-containerd)-.*|/kubepods.*",
    ),
    (r"crio\.service", _CONTAINERS, r".*/crio-.*|/kubepods.*"),
    (r"(k3s|k3s-agent|kubelet|rke2-.*|k0s.*)\.service", _CONTAINERS, r"/kubepods.*"),
    (r"(lxc|lxd|incus).*\.service", _CONTAINERS, r".*/lxc\.(payload|monitor)\..*"),
    (r"(systemd-machined|libvirtd|virt.*d)\.service", "machines", r"/machine\.slice/.*"),
    (r"(ssh|sshd|dropbear)(@.*)?\.service", _SESSIONS, r"/user\.slice/.*/session-.*"),
    (r"(systemd-logind|getty@.*|serial-getty@.*)\.service", _SESSIONS, r"/user\.slice/.*"),
    (r"user@\d+\.service", "services of the user", r""),
    (r"((ana|f)?crond?|cronie|atd)\.service", "jobs", r"/user\.slice/.*/session-.*"),
)


def started_by(unit: str) -> str:
    """Return what the unit starts in other cgroups, in words; empty if nothing is known."""
    return next((what for name, what, _ in _STARTERS if re.fullmatch(name, unit)), "")


def is_started_by(unit: str, cgroup: str) -> bool:
    """Return whether the unit started the processes of a cgroup, whose path begins with a slash."""
    return any(
        where and re.fullmatch(name, unit) and re.fullmatch(where, cgroup)
        for name, _, where in _STARTERS
    )


def remark(unit: str) -> str:
    """Return the remark for people who enroll the unit; empty if there is none."""
    what = started_by(unit)
    if not what:
        return ""
    return (
        f"{unit} starts {what} in cgroups of their own, which its enrollment does not capture:"
        " enroll each by the path of its network namespace, or as a unit of its own"
    )
