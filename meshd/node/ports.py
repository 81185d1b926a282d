"""What the reconciler needs of the rest of the node: each port is one concern, behind a protocol.

A port raises ``SystemRefusedError`` for what may go well at a later attempt, and another
``MeshdError`` for values that it will refuse again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

import msgspec

from meshd.api.base import Key, Object
from meshd.api.service_entry.types import ReadinessProbe
from meshd.model.pool import Pool
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Identity, Placement, Workload
from meshd.node.known import Known
from meshd.node.publishing import Inputs
from meshd.workloads.lifecycle import Life


class Listeners(msgspec.Struct, frozen=True):
    """The workloads' listeners in the proxies."""

    missing: Collection[Pool] = ()
    """Pools of which no member is connected."""
    accepted: Collection[str] = ()
    """Uids of the workloads whose listeners are all in use, as published."""
    present: Collection[str] = ()
    """Uids of the workloads of which any listener is published, or may be in use."""
    lead: bool = True
    """Proxies lead connections as published, but for what they refused."""


class Objects(Protocol):
    """The configuration."""

    @property
    def objects(self) -> Mapping[Key, Object]: ...


class Records(Protocol):
    """What outlives the process."""

    def load(self) -> Known: ...

    def save(self, registered: Mapping[str, Workload], lives: Mapping[str, Life]) -> None:
        """Raises SystemRefusedError: what was recorded before still is."""
        ...


class Published(Protocol):
    """What proxies are told, as it was wanted."""

    @property
    def seen(self) -> Snapshot:
        """Return the snapshot that was compiled, with the workloads that are served."""
        ...

    @property
    def served(self) -> Mapping[str, Workload]: ...


class Publisher(Protocol):
    """Snapshots of the mesh, and what proxies are told. Either takes its time: settling is due
    again when there is another."""

    @property
    def snapshot(self) -> Snapshot | None:
        """Return the newest; None until the first was taken."""
        ...

    @property
    def published(self) -> Published | None:
        """Return what is published; None until anything is."""
        ...

    @property
    def asked(self) -> int:
        """Return how often a snapshot was asked for: each has all that was known at its number."""
        ...

    @property
    def newest(self) -> int:
        """Return the number of the newest snapshot."""
        ...

    def retake(self, inputs: Callable[[], Inputs]) -> None: ...

    def publish(
        self, snapshot: Snapshot, served: Mapping[str, Workload], resolvers: Mapping[str, str]
    ) -> None:
        """Raises InvalidInputError of values that were refused."""
        ...


class Proxies(Protocol):
    """What proxies have."""

    def listeners(self) -> Listeners: ...


class Capture(Protocol):
    """The redirection of traffic."""

    def place(self, placements: tuple[Placement, ...], host_is_known: bool) -> None: ...


class Certificates(Protocol):
    """The identities for which proxies get certificates."""

    def allow(self, identities: tuple[Identity, ...], contacts: int) -> None: ...

    @property
    def valid(self) -> Collection[str]:
        """Return the identities that have a valid certificate now, as SPIFFE URIs."""
        ...

    def is_waiting_for(self, uris: Iterable[str]) -> bool:
        """Return whether it will soon be known which of these identities have a certificate."""
        ...


class Resolver(Protocol):
    """The names of services."""

    @property
    def resolvers(self) -> Mapping[str, str]: ...

    def follow(
        self, services: Mapping[str, ServiceRecord], workloads: Collection[Workload]
    ) -> None: ...


class Health(Protocol):
    """The probes of WorkloadGroups' members."""

    def is_healthy(self, uid: str) -> bool: ...

    def check(self, wanted: Mapping[str, tuple[Workload, ReadinessProbe]]) -> None: ...


class Addresses(Protocol):
    """This host's own addresses."""

    @property
    def preferred(self) -> tuple[str, ...]: ...

    @property
    def every(self) -> tuple[str, ...]: ...


class Issuers(Protocol):
    """The issuers of tokens."""

    @property
    def keys(self) -> dict[str, str]:
        """Return the sets of keys that were fetched, by URL."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All ports of one reconciler."""

    objects: Objects
    records: Records
    publisher: Publisher
    proxies: Proxies
    capture: Capture
    certificates: Certificates
    resolver: Resolver
    health: Health
    own: Addresses
    issuers: Issuers
