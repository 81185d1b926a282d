"""Kubernetes' objects as the API server has them, reduced to the fields that matter on a node.

https://kubernetes.io/docs/reference/kubernetes-api/. Unknown fields are ignored.
"""

from __future__ import annotations

import msgspec

from meshd.api.base import Ignoring
from meshd.model.workload import address_problem


class Meta(Ignoring, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class Followed(Ignoring, frozen=True):
    """Base of what is followed."""

    metadata: Meta = Meta()

    @property
    def key(self) -> tuple[str, str]:
        """Return namespace and name."""
        return self.metadata.namespace, self.metadata.name


class Namespace(Followed, frozen=True):
    """Its labels say whether its pods are in the mesh."""


class ContainerPort(Ignoring, frozen=True):
    container_port: int
    name: str = ""


class Container(Ignoring, frozen=True):
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(Ignoring, frozen=True):
    containers: tuple[Container, ...] = ()
    service_account_name: str = "default"
    hostname: str = ""
    host_network: bool = False
    node_name: str = ""


class PodIp(Ignoring, frozen=True):
    ip: str = ""


class Condition(Ignoring, frozen=True):
    type: str = ""
    status: str = ""


class PodStatus(Ignoring, frozen=True):
    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    pod_ips: tuple[PodIp, ...] = msgspec.field(default=(), name="podIPs")


class Pod(Followed, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_ready(self) -> bool:
        """Return whether it may be sent traffic: one that is being deleted may not."""
        is_ready = any(
            one.type == "Ready" and one.status == "True" for one in self.status.conditions
        )
        return is_ready and not self.metadata.deletion_timestamp

    @property
    def is_running(self) -> bool:
        return self.status.phase == "Running"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return its addresses, IPv4 first."""
        told = (one.ip for one in self.status.pod_ips)
        usable = [ip for ip in told if ip and not address_problem(ip)]
        return tuple(sorted(usable, key=lambda address: ":" in address))
