"""The node around a reconciler, in memory: fakes of its ports, which outlive it.

Nothing here happens by itself: a test says when capture works, proxies accept and resolvers answer,
and, with ``round`` and ``work``, when a snapshot or a compilation begins and when it ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from meshd.api.base import Key, Object
from meshd.base.errors import InvalidInputError, MeshdError, SystemRefusedError
from meshd.base.json_values import JsonObject
from meshd.config.admission import admit
from meshd.model.pool import Pool
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import (
    HostService,
    Identity,
    NamedPort,
    Observation,
    Placement,
    Stage,
    Workload,
)
from meshd.node.known import Known
from meshd.node.ports import Listeners, Ports
from meshd.node.publishing import Inputs, Wanted
from meshd.node.reconciler import Reconciler
from meshd.registry.registry import build_snapshot
from meshd.workloads.lifecycle import Life
from meshd.workloads.record import Renamed

OPTIONS = MeshOptions()


def pod(name: str, netns: str = "1", account: str = "default", **more: Any) -> Workload:
    return Workload(
        uid=f"shop.{name}",
        name=name,
        namespace="shop",
        netns=f"/run/netns/{name}-{netns}",
        service_account=account,
        **more,
    )


def host_service(name: str) -> Workload:
    host = HostService(cgroup=f"system.slice/{name}", address_asked=False)
    ports = (NamedPort("http", 80),)
    return Workload(
        uid=f"host.{name}", name=name, namespace="host", netns="", ports=ports, host=host
    )


def remote(name: str, *addresses: str) -> Workload:
    return Workload(
        uid=f"shop.{name}",
        name=name,
        namespace="shop",
        netns="",
        node="other",
        addresses=addresses,
        labels={"app": name},
    )


def service(name: str, app: str = "") -> Object:
    spec: JsonObject = {"ports": [{"port": 80}], "selector": {"app": app or name}}
    meta: JsonObject = {"name": name, "namespace": "shop"}
    return admit({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})


IN_GROUP = {"meshd.io/workload-group": "all"}
GROUP = admit(
    {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": "all", "namespace": "shop"},
        "spec": {"template": {"serviceAccount": "all"}, "probe": {"tcpSocket": {"port": 80}}},
    }
)
BAD = "uncompilable"
"""The name of a service with which nothing can be published."""


@dataclasses.dataclass
class Outcome:
    """What the node was brought to."""

    placed: tuple[Placement, ...]
    allowed: tuple[Identity, ...]
    published: tuple[Snapshot, dict[str, Workload], dict[str, str]] | None
    resolved: dict[str, ServiceRecord]
    registered: dict[str, Workload]
    lives: dict[str, Life]
    checked: dict[str, Any]


class World:
    """All ports of a node. ``calls`` has what ports were told, by name."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.failing: set[str] = set()
        """Ports that the system refuses."""
        self.failing_once: set[str] = set()
        """Ports that the system refuses at their next call."""
        self.dirty = True
        self.objects: Mapping[Key, Object] = {}
        self.preferred: tuple[str, ...] = ("198.18.0.1",)
        self.elsewhere: tuple[Workload, ...] = ()
        self.healthy: set[str] = set()
        # What ports were told, and what they made of it.
        self.recorded: tuple[dict[str, Workload], dict[str, Life]] = ({}, {})
        self.placed: tuple[Placement, ...] = ()
        self.host_is_known = True
        self.kernel: dict[str, Placement] = {}
        self.allowed: tuple[Identity, ...] = ()
        self.contacts = 0
        self.uncertified: set[str] = set()
        """Identities whose certificates have not come."""
        self.published: tuple[Snapshot, dict[str, Workload], dict[str, str]] | None = None
        self.in_proxies: dict[str, Workload] = {}
        self.lead = True
        """Proxies lead connections as published."""
        self.resolved: dict[str, ServiceRecord] = {}
        self.namespaces: frozenset[str] = frozenset()
        self.answering: frozenset[str] = frozenset()
        self.checked: dict[str, Any] = {}
        self.keys: dict[str, str] = {}
        """Of issuers of tokens."""
        self.publisher = Publisher(self)
        self.reconciler = self._started()

    def _started(self) -> Reconciler:
        ports = Ports(
            objects=self,
            records=Records(self),
            publisher=self.publisher,
            proxies=self,
            capture=self,
            certificates=self,
            resolver=self,
            health=self,
            own=self,
            issuers=self,
        )
        return Reconciler(ports, OPTIONS, self.touch)

    def touch(self) -> None:
        self.dirty = True

    def restart(self) -> None:
        """End the reconciler's process, and start another from what the first has recorded."""
        self.published = None
        self.dirty = True
        self.publisher = Publisher(self)
        self.reconciler = self._started()
        self.reconciler.hear_of(self.elsewhere)

    def call(self, port: str) -> None:
        if port in self.failing or port in self.failing_once:
            self.failing_once.discard(port)
            raise SystemRefusedError(f"{port}: no space left on device")
        self.calls.append(port)

    # ---- ports

    @property
    def every(self) -> tuple[str, ...]:
        return self.preferred

    def place(self, placements: tuple[Placement, ...], host_is_known: bool) -> None:
        self.call("place")
        self.placed, self.host_is_known = placements, host_is_known

    def allow(self, identities: tuple[Identity, ...], contacts: int) -> None:
        self.call("allow")
        self.allowed, self.contacts = identities, contacts

    @property
    def valid(self) -> frozenset[str]:
        return self._allowed_uris - self.uncertified

    def is_waiting_for(self, uris: Iterable[str]) -> bool:
        return not self.valid.issuperset(uris)

    @property
    def _allowed_uris(self) -> frozenset[str]:
        return frozenset(identity.uri for identity in self.allowed)

    @property
    def resolvers(self) -> dict[str, str]:
        return dict.fromkeys(self.answering, "127.0.0.1")

    def follow(
        self, services: Mapping[str, ServiceRecord], workloads: Collection[Workload]
    ) -> None:
        namespaces = frozenset(one.namespace for one in workloads)
        if (services, namespaces) != (self.resolved, self.namespaces):
            self.call("follow")
            self.resolved, self.namespaces = dict(services), namespaces

    def is_healthy(self, uid: str) -> bool:
        return uid in self.healthy

    def check(self, wanted: Mapping[str, Any]) -> None:
        self.call("check")
        self.checked = dict(wanted)

    def listeners(self) -> Listeners:
        published = self.published[1] if self.published else {}
        return Listeners(
            missing=() if self.in_proxies else (Pool.TRAFFIC,),
            accepted=[uid for uid, one in published.items() if self.in_proxies.get(uid) == one],
            present=published.keys() | self.in_proxies.keys(),
            lead=self.lead,
        )

    # ---- what happens outside of the reconciler

    def round(self) -> None:
        """Settle; what fails is due to be tried again."""
        self.dirty = False
        try:
            self.reconciler.settle()
        except MeshdError:
            self.dirty = True
            raise

    def rounds(self) -> None:
        """Settle as long as that is due, whatever is being compiled."""
        while self.dirty:
            self.round()

    def work(self) -> None:
        """Have the snapshot or the compilation that is under way end, or else the next begin."""
        self.publisher.work()

    def settle(self) -> None:
        """Settle until nothing is to be compiled any more. Raises what the last round does."""
        error: MeshdError | None = None
        while True:
            try:
                self.round()
            except MeshdError as raised:
                error = raised
            else:
                error = None
            if not self.publisher.is_busy:
                break
            while self.publisher.is_busy:
                self.work()
        if error:
            raise error

    def configure(self, *objects: Object) -> None:
        self.objects = {one.key: one for one in objects}
        self.reconciler.inputs_changed()

    def move(self, *addresses: str) -> None:
        self.preferred = addresses
        self.reconciler.addresses_changed()

    def hear(self, *elsewhere: Workload) -> None:
        self.elsewhere = elsewhere
        self.reconciler.hear_of(elsewhere)

    def health(self, uid: str, healthy: bool) -> None:
        self.healthy = self.healthy - {uid} | ({uid} if healthy else set())
        self.reconciler.inputs_changed()

    def capture(self) -> None:
        """Have capture do what it was told, and tell what it sees."""
        self.kernel = {one.workload.uid: one for one in self.placed}
        self.reconciler.observed([_seen(one) for one in self.kernel.values()])

    def accept(self) -> None:
        """Have the proxies accept what is published."""
        if self.published and self.in_proxies != self.published[1]:
            self.in_proxies = self.published[1]
            self.dirty = True

    def answer(self) -> None:
        """Have the resolvers read their tables."""
        if self.answering != self.namespaces:
            self.answering = self.namespaces
            self.dirty = True

    def rest(self) -> None:
        """Go on until nothing more happens, and only when somebody has said that it is due."""
        for _ in range(100):
            if not self.dirty and not self.publisher.is_busy:
                return
            self.settle()
            self.capture()
            self.accept()
            self.answer()
        raise AssertionError("it never comes to rest")

    @property
    def outcome(self) -> Outcome:
        assert self.placed == tuple(self.kernel.values())
        return Outcome(
            self.placed,
            self.allowed,
            self.published,
            self.resolved,
            *self.recorded,
            checked=self.checked,
        )


def _seen(placement: Placement) -> Observation:
    workload, captured = placement.workload, placement.stage is Stage.CAPTURED
    number = workload.netns.rpartition("-")[2]
    return Observation(
        workload.uid,
        placement.stage,
        proven=captured,
        pinned="" if workload.host else f"/pins/{workload.uid}",
        addresses=() if workload.host else (f"198.18.1.{number}",),
    )


class Records:
    def __init__(self, world: World) -> None:
        self._world = world

    def load(self) -> Known:
        registered, lives = self._world.recorded
        return Known(registered=registered, lives=lives)

    def save(self, registered: Mapping[str, Workload], lives: Mapping[str, Life]) -> None:
        if (registered, lives) != self._world.recorded:
            self._world.call("save")
            self._world.recorded = dict(registered), dict(lives)


class Publisher:
    """Publishes snapshots that are taken as in earnest; a test says how far that is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._inputs: Callable[[], Inputs] | None = None
        """Of the snapshot that is to be taken."""
        self._taking: Snapshot | None = None
        self._wanted: Wanted | None = None
        self._asked = False
        self._compiling: Wanted | None = None
        self._refused: Wanted | None = None
        self.snapshot: Snapshot | None = None
        self.asked = 0
        self.newest = 0
        self._number = 0
        """Of the snapshot that is being taken."""

    @property
    def published(self) -> Wanted | None:
        return Wanted(*self._world.published) if self._world.published else None

    @property
    def wanted(self) -> Wanted | None:
        return self._wanted

    @property
    def is_busy(self) -> bool:
        jobs = (self._inputs, self._taking, self._compiling)
        return self._asked or any(one is not None for one in jobs)

    @property
    def is_compiling(self) -> bool:
        return self._compiling is not None

    def retake(self, inputs: Callable[[], Inputs]) -> None:
        self._inputs = inputs
        self.asked += 1

    def publish(
        self, snapshot: Snapshot, served: Mapping[str, Workload], resolvers: Mapping[str, str]
    ) -> None:
        wanted = Wanted(snapshot, dict(served), dict(resolvers))
        if wanted == self._refused:
            raise InvalidInputError(f"{BAD} cannot be compiled")
        if wanted != self._wanted:
            self._world.call("publish")
            self._wanted, self._asked = wanted, True
            if self.published:
                self._put_in_force(self.published)

    def work(self) -> None:
        if self._taking is not None:
            self.snapshot, self._taking = self._taking, None
            self.newest = self._number
            self._world.touch()
        elif self._compiling is not None:
            wanted, self._compiling = self._compiling, None
            self._end(wanted)
            self._world.touch()
        elif self._inputs is not None:
            known, self._inputs = self._inputs(), None
            self._number = self.asked
            self._taking = build_snapshot(
                self._world.objects.values(),
                known.members,
                OPTIONS,
                {},
                elsewhere=Renamed().all(known.elsewhere),
            )
        elif self._asked:
            self._compiling, self._asked = self._wanted, False

    def _end(self, wanted: Wanted) -> None:
        is_bad = any(host.startswith(BAD) for host in wanted.snapshot.services)
        self._refused = wanted if is_bad else None
        if is_bad:
            self._world.calls.append("refused")
        else:
            self._put_in_force(wanted)

    def _put_in_force(self, one: Wanted) -> None:
        assert self._wanted
        here = {uid: kept for uid, kept in one.served.items() if uid in self._wanted.served}
        self._world.published = one.snapshot, here, dict(one.resolvers)
