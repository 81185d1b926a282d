"""The workload of a pod. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from meshd.kubernetes.forwarded import read_annotations
from meshd.kubernetes.objects import Pod
from meshd.model.workload import NamedPort, Workload

_HOSTNAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_PORT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?", re.ASCII)
_LONGEST_PART: Final = 63
_LONGEST_NAME: Final = 150
"""Characters; with those of its namespace, a workload's name is a part of a file's."""


def fitting(name: str) -> str:
    """Return the name of a pod as that of a workload: a part of it may have 63 characters, and a
    pod's have any number."""
    if len(name) <= _LONGEST_NAME and all(len(part) <= _LONGEST_PART for part in name.split(".")):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    kept = name[: _LONGEST_PART - 11].replace(".", "-").rstrip("-")
    return f"{kept}-{digest}"


def of_pod(pod: Pod, netns: str, addresses: tuple[str, ...], *, enrolled: bool) -> Workload:
    """Return the workload of a pod in a namespace of the kernel.

    ``addresses``: those that its network has given it; empty: those that the API server tells.
    ``enrolled``: whether its labels and those of its namespace have it in the mesh.
    """
    meta = pod.metadata
    hostname, name = pod.spec.hostname or meta.name, fitting(meta.name)
    return Workload(
        uid=f"{meta.namespace}.{name}",
        name=name,
        namespace=meta.namespace,
        netns=netns,
        hostname=hostname if _HOSTNAME.fullmatch(hostname) else "",
        service_account=pod.spec.service_account_name,
        labels=meta.labels,
        annotations=read_annotations(meta),
        addresses=addresses or pod.addresses,
        ports=tuple(
            NamedPort(port.name, port.container_port)
            for container in pod.spec.containers
            for port in container.ports
            if not port.name or _PORT_NAME.fullmatch(port.name)
        ),
        ready=pod.is_ready,
        enrolled=enrolled,
    )
