"""A pod as the testbed runs it: completely decided, down to each process's environment."""

from __future__ import annotations

from typing import Literal

import msgspec

from meshd.api.kubernetes.types import Probe
from meshd.model.workload import NamedPort


class FilePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a volume."""

    path: str
    """Below the volume's directory."""
    content: bytes
    mode: int = 0o644


class VolumePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that a pod's containers share; with files, they can only read it."""

    name: str
    files: tuple[FilePlan, ...] = ()
    writable: bool = False


class MountPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The place at which a container finds a volume, or a part of it."""

    path: str
    volume: str
    sub_path: str = ""
    writable: bool = False


class ContainerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One process, and its readiness probe."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = {}
    directory: str = ""
    """The image's folder on the host; empty: it has none."""
    working_directory: str = ""
    """What the manifest asks for; empty, or not there: the image's folder."""
    readiness: Probe | None = None
    mounts: tuple[MountPlan, ...] = ()


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
    volumes: tuple[VolumePlan, ...] = ()
    hostname: str = ""
    service_account: str = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    ports: tuple[NamedPort, ...] = ()
    enrolled: bool = False
    """Whether nothing of it may run before the mesh has proven that it captures its traffic."""

    @property
    def every_container(self) -> tuple[ContainerPlan, ...]:
        return (*self.containers, *self.init_containers)


class Strategy(msgspec.Struct, frozen=True, kw_only=True):
    """How the pods of one owner are replaced by others."""

    order: Literal["rolling", "ordered", "recreate"] = "recreate"
    """A few at a time; one after another from the highest ordinal; all old ones before any new."""
    surge: int = 0
    """How many pods there may be beside the wanted number."""
    unavailable: int = 0
    """How many of the wanted number need not be available meanwhile."""
    min_ready_seconds: float = 0
    """How long a pod must have been ready to be available."""


class OwnerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """An object that asks for pods, those without replicas too."""

    name: str
    """As in ``PodPlan.owner``."""
    strategy: Strategy = Strategy()


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """An owner whose pods are not yet those that are wanted, or not yet available."""

    owner: str
    wanted: int
    updated: int
    """Pods of the wanted plan that are available."""
    outdated: int
    """Pods of before that run on."""
    pending: tuple[PodPlan, ...] = ()
    """Pods that are not started yet."""
    problem: str = ""
    """Why it does not go on by itself."""


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one process."""

    name: str
    state: str
    ready: bool = False
    restarts: int = 0
    pid: int = 0
    """0 when it does not run."""
    log: str = ""
    """Path of what it wrote to its standard output and error."""


class PodState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one pod."""

    plan: PodPlan
    netns: str
    state: str
    ready: bool
    problem: str = ""
    containers: tuple[ContainerState, ...] = ()

    @property
    def restarts(self) -> int:
        return sum(container.restarts for container in self.containers)
