"""ServiceEntry and WorkloadEntry of networking.istio.io: services and workloads beside the
registry.

After https://istio.io/latest/docs/reference/config/networking/service-entry/ and workload-entry/.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from meshd.api.base import NETWORKING_VERSIONS, Object, Strict


class ServicePortEntry(Strict, frozen=True):
    number: int
    name: str
    protocol: str | None = None
    target_port: int | None = None


class WorkloadEntrySpec(Strict, frozen=True):
    address: str = ""
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    network: str | None = None
    locality: str | None = None
    weight: int | None = None
    service_account: str | None = None


class EntrySelector(Strict, frozen=True):
    """A selector that, unlike others of the API, says ``labels``."""

    labels: dict[str, str] = {}


class ServiceEntrySpec(Strict, frozen=True):
    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[ServicePortEntry, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"] = "NONE"
    endpoints: tuple[WorkloadEntrySpec, ...] = ()
    workload_selector: EntrySelector | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()


class ServiceEntry(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = NETWORKING_VERSIONS
    KIND: ClassVar[str] = "ServiceEntry"
    PLURALS: ClassVar[tuple[str, ...]] = ("serviceentries", "serviceentry", "se")

    spec: ServiceEntrySpec


class WorkloadEntry(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = NETWORKING_VERSIONS
    KIND: ClassVar[str] = "WorkloadEntry"
    PLURALS: ClassVar[tuple[str, ...]] = ("workloadentries", "workloadentry", "we")

    spec: WorkloadEntrySpec


class HTTPHeader(Strict, frozen=True):
    name: str
    value: str = ""


class HTTPHealthCheck(Strict, frozen=True):
    port: int
    path: str = "/"
    host: str | None = None
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPHealthCheck(Strict, frozen=True):
    port: int
    host: str | None = None


class ExecHealthCheck(Strict, frozen=True):
    command: tuple[str, ...]


class GRPCHealthCheck(Strict, frozen=True):
    port: int
    service: str | None = None


class ReadinessProbe(Strict, frozen=True):
    """A health probe; exactly one of the last four fields is set."""

    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    http_get: HTTPHealthCheck | None = None
    tcp_socket: TCPHealthCheck | None = None
    exec: ExecHealthCheck | None = None
    grpc: GRPCHealthCheck | None = None


class GroupMetadata(Strict, frozen=True):
    """The metadata that each member of a group gets."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class WorkloadGroupSpec(Strict, frozen=True):
    """A group of workloads. After
    https://istio.io/latest/docs/reference/config/networking/workload-group/."""

    template: WorkloadEntrySpec
    metadata: GroupMetadata = GroupMetadata()
    probe: ReadinessProbe | None = None


class WorkloadGroup(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = NETWORKING_VERSIONS
    KIND: ClassVar[str] = "WorkloadGroup"
    PLURALS: ClassVar[tuple[str, ...]] = ("workloadgroups", "workloadgroup", "wg")

    spec: WorkloadGroupSpec
