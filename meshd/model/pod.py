"""A pod as the testbed runs it: everything is decided, down to each process's environment."""

from __future__ import annotations

import msgspec

from meshd.model.kubernetes import Probe
from meshd.model.workload import NamedPort


class ContainerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One process, and how to tell whether it is ready."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = {}
    directory: str = ""
    """The image's folder on the host; empty: it has none."""
    working_directory: str = ""
    """What the manifest asks for; empty, or not there: the image's folder."""
    readiness: Probe | None = None


class PodPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One pod. Equal plans need no change."""

    uid: str
    name: str
    namespace: str
    owner: str
    """The object of the manifest that asks for it, as ``KIND NAMESPACE/NAME``."""
    address: str
    address_v6: str
    user: int
    """The uid (and gid) that its processes run as."""
    containers: tuple[ContainerPlan, ...]
    init_containers: tuple[ContainerPlan, ...] = ()
    hostname: str = ""
    service_account: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    ports: tuple[NamedPort, ...] = ()
    enrolled: bool = False
    """Whether nothing of it may run before the mesh has proven that it captures its traffic."""


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """How one process is."""

    name: str
    state: str
    ready: bool = False
    restarts: int = 0
    pid: int = 0
    """0 when it does not run."""
    log: str = ""
    """Path of what it wrote to its standard output and error."""


class PodState(msgspec.Struct, frozen=True, kw_only=True):
    """How one pod is."""

    plan: PodPlan
    netns: str
    state: str
    ready: bool
    problem: str = ""
    containers: tuple[ContainerState, ...] = ()

    @property
    def restarts(self) -> int:
        return sum(container.restarts for container in self.containers)
