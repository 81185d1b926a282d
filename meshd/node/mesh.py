"""The parts of the mesh role, and what several of them together tell.

Who answers people, other nodes or a server is given this; ``roles.mesh`` puts it together.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshd.api import file_references
from meshd.base.errors import NotReadyError
from meshd.base.threads import in_thread
from meshd.compile.policy import mutual_tls_timeout
from meshd.compile.traffic import shares
from meshd.config.requests import Refusals
from meshd.config.store import Store
from meshd.model.capacity import Capacity
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.node.in_work import Elsewhere, InWork
from meshd.node.own_addresses import OwnAddresses
from meshd.node.processes import Capture, Certificates
from meshd.node.publishing import Publishing
from meshd.node.reconciler import Reconciler
from meshd.node.resolving import Resolving
from meshd.node.settling import Settling
from meshd.node.token_keys import TokenKeys
from meshd.node.tunneled import Tunneled
from meshd.registry.snapshots import Given
from meshd.workloads import addressing, record
from meshd.workloads.health import Checker
from meshd.xds.server import Server

_SNAPSHOT_TIMEOUT: Final = 8.0
"""Seconds for a snapshot to be taken."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """The parts. None of them begins to run by being made."""

    options: MeshOptions
    capacity: Capacity
    store: Store
    xds: Server
    publishing: Publishing
    reconciler: Reconciler
    settling: Settling
    capture: Capture
    certificates: Certificates
    resolving: Resolving
    own: OwnAddresses
    checker: Checker
    token_keys: TokenKeys
    work: InWork
    tunneled: Tunneled
    further_problems: list[Callable[[], str]] = dataclasses.field(default_factory=list)
    """Problems of others than these parts; each gives a line, or nothing."""

    # ---- workloads

    @property
    def elsewhere(self) -> tuple[Workload, ...]:
        """Return the workloads of other nodes, as those name them."""
        return self.reconciler.known.elsewhere

    @property
    def running(self) -> tuple[Workload, ...]:
        """Return all workloads that are in the mesh, or may be, on whichever node."""
        return (*self.reconciler.members().values(), *self.elsewhere)

    def hear_of(self, told: Sequence[Workload]) -> None:
        """Take all workloads of other nodes, but for those that this role died of."""
        starting = not self.settling.count
        noted = self.work.noted(told, self.elsewhere, starting=starting)
        self.reconciler.hear_of(self.work.heard(noted))

    async def hear_of_many(self, told: Sequence[Workload]) -> None:
        """Do the same without holding the loop while many are noted. One call is to end before the
        next begins; of one that is cancelled, nothing is put in force."""
        note = functools.partial(self.work.noted, told, self.elsewhere)
        noting = in_thread("noting workloads of other nodes", note)
        try:
            noted = await asyncio.shield(noting)
        except asyncio.CancelledError:  # the thread goes on
            noting.add_done_callback(self._let_go)
            raise
        self.reconciler.hear_of(self.work.heard(noted))

    def _let_go(self, noting: asyncio.Future[Elsewhere]) -> None:
        if not noting.exception():
            self.work.heard(noting.result())

    def roster(self, node: str) -> tuple[Workload, ...]:
        """Return this node's workloads as other nodes are to know them."""
        reconciler, inside = self.reconciler, self.reconciler.inside()
        return record.roster(
            node,
            reconciler.members(),
            reconciler.known.lives,
            inside,
            self.options.locality,
            tunneled=self._tunneled(inside),
        )

    def _tunneled(self, inside: Mapping[str, Workload]) -> frozenset[str]:
        if not self.options.hbone:
            return frozenset()
        accepted = self.reconciler.facts(inside).accepted
        return self.tunneled.of(inside, self.reconciler.known.lives, accepted)

    # ---- how far it is

    def has_read(self, number: int) -> bool:
        """Return whether the newest snapshot has all that was known when ``publishing.asked`` was
        this."""
        return self.publishing.newest >= number

    def has_compiled(self, number: int) -> bool:
        """Return whether all is published that was wanted when ``publishing.compilation`` was
        this."""
        return self.publishing.compiled >= number

    async def snapshot(self) -> Snapshot:
        """Return a snapshot with all that was known before. Raises NotReadyError if that takes too
        long."""
        number = self.publishing.asked
        await self.settling.wait(lambda: self.has_read(number), _SNAPSHOT_TIMEOUT)
        newest = self.publishing.snapshot
        if newest is None or not self.has_read(number):
            faults = "".join(f"; {fault}" for fault in self.publishing.faults)
            raise NotReadyError(
                f"the configuration has not been read after {_SNAPSHOT_TIMEOUT:g} s; try again, and"
                f" see meshctl status{faults}"
            )
        return newest

    # ---- what is wrong

    def trial(self) -> Refusals:
        """Return a function, for a thread, that returns what cannot be compiled of a configuration
        that is wanted, among the workloads of now; see ``Publishing.refusals``."""
        inputs, given = self.reconciler.inputs(), Given.of(self.store)
        return functools.partial(self.publishing.refusals, inputs, given)

    def not_in_force(self) -> tuple[str, ...]:
        """Return what proxies refuse or would refuse of what is wanted, a line each.

        That something is missing is no part of it: it may come.
        """
        refused = (
            f"{type_url.rpartition('.')[2]} {name} is refused by a proxy: {rejection.reason}"
            for (type_url, name), rejection in self.xds.rejections().items()
        )
        return (*self.publishing.not_in_force(), *refused)

    def all_problems(self) -> tuple[str, ...]:
        known = self.reconciler.known
        single = (
            self.settling.problem,
            self.certificates.problem,
            self.resolving.problem,
            self.token_keys.problems,
            addressing.first_doubt(known.registered, self.own.every),
            *(problem() for problem in self.further_problems),
        )
        return (
            *self.publishing.problems,
            *self.publishing.faults,
            *self.publishing.uncompiled,
            *self.publishing.credential_problems(),
            *file_references.problems(self.store.objects.values(), self.certificates.files),
            *known.damaged.values(),
            *self.work.problems,
            *filter(None, single),
            *shares.problems(known.registered.values()),
            *mutual_tls_timeout.problems(known.registered.values()),
        )
