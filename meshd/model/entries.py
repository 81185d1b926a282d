"""networking.istio.io ServiceEntry and WorkloadEntry: services and workloads beside the registry.

After https://istio.io/latest/docs/reference/config/networking/service-entry/ and workload-entry/.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from meshd.model.base import NETWORKING_VERSIONS, Object, Strict


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
    """Unlike other selectors of the API, this one says ``labels``."""

    labels: dict[str, str] = {}


class ServiceEntrySpec(Strict, frozen=True):
    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[ServicePortEntry, ...] = ()
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Literal["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN"] = "NONE"
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
