"""Takes snapshots of the mesh, compiles them, and publishes the result to the proxies.

Both take seconds in a large mesh, so that each is done in a thread (``background``); nothing here
waits for either. A snapshot is taken when something has changed since the last one; it is compiled
when it, the served workloads or the resolvers differ from those of the last compilation. What
changes during either is part of the next.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import msgspec

from meshd.api.base import Key, Object
from meshd.base.errors import InvalidInputError
from meshd.base.once import SaidOnce
from meshd.compile.compiler import Compiler
from meshd.compile.gateway.secrets import UsedCredential
from meshd.compile.replacement.isolation import Isolating
from meshd.compile.replacement.lost_configuration import closed_for_lost
from meshd.config.accepted_before import AcceptedBefore
from meshd.config.store import Store, WrittenAddresses
from meshd.model.listed import ListedEndpoint
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.node.background import Background
from meshd.node.closing import Entrances, Known
from meshd.node.packing import Packer
from meshd.node.publication import Compiled, Publication, Wanted
from meshd.node.stages import Progress, Step
from meshd.node.trying import refused
from meshd.registry import snapshots
from meshd.registry.registry import Registry, build_snapshot
from meshd.registry.snapshots import Given
from meshd.workloads.record import Renamed
from meshd.xds.resources import Resources

_log: Final = logging.getLogger(__name__)


class Inputs(msgspec.Struct, frozen=True):
    """The workloads of a snapshot; its objects are those of the store."""

    members: tuple[Workload, ...] = ()
    """The workloads of this node."""
    elsewhere: tuple[Workload, ...] = ()
    """The workloads of other nodes, as those name them."""
    listed: tuple[ListedEndpoint, ...] = ()
    """The endpoints of Services that Kubernetes lists."""
    token_keys: dict[str, str] = {}
    """The keys of issuers that were fetched, by URL."""


class _Taken(msgspec.Struct, frozen=True):
    """A snapshot, and the problems that were found on taking it."""

    snapshot: Snapshot
    problems: tuple[str, ...]
    written: WrittenAddresses
    """The virtual addresses of its services."""


class Publishing:
    """The snapshot and its publication. ``publish`` hands resources to the proxies; ``changed`` is
    called when there is another snapshot, or another publication; ``step`` at each step towards
    either."""

    def __init__(
        self,
        store: Store,
        options: MeshOptions,
        service_cidr: str,
        publish: Callable[[Mapping[Pool, Resources]], None],
        changed: Callable[[], None] = lambda: None,
        *,
        step: Callable[[Step], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._options = options
        self._service_cidr = service_cidr
        self._changed = changed
        self._step = step
        self._inputs: Callable[[], Inputs] = Inputs
        self._taking = Background("taking a snapshot", self._begin_taking, self._take)
        self._compiling = Background(
            "compiling", self._begin_compiling, self._compiled, self._taken_over
        )
        self._publication = Publication(publish, self._served, self._known, changed, step=step)
        # Each belongs to the job that runs, and to nothing else.
        self._renamed = Renamed()
        self._registry = Registry()
        self._accepted = AcceptedBefore()
        self._compiler = Compiler()
        self._isolating = Isolating(self._compiler, Compiler)
        self._packer = Packer()
        # What is so, and what is wanted.
        self.snapshot: Snapshot | None = None
        """The newest; None until the first was taken."""
        self._wanted: Wanted | None = None
        self._wanted_number = 0
        """The number of its snapshot, or of a newer one that is equal."""
        self._refused: Compiled | None = None
        self._uncompiled = SaidOnce({"MESHD_EVENT": "not-compiled"})
        self._unusable = SaidOnce({"MESHD_EVENT": "credential"})
        self.problems: tuple[str, ...] = ()
        """What is wrong with the configuration, a line each."""

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._taking.run())
            tasks.create_task(self._compiling.run())
            tasks.create_task(self._publication.closing.run())

    @property
    def busy(self) -> bool:
        """Return whether a snapshot or a publication is under way."""
        return any(job.busy for job in self._jobs)

    @property
    def _jobs(self) -> tuple[Background[Any], ...]:
        return self._taking, self._compiling, self._publication.closing

    @property
    def progress(self) -> Progress:
        """Return the work that there is still to do."""
        return Progress(
            reads=self._taking.busy,
            compiles=self._compiling.busy or self._publication.is_pending,
            publishes=self.published is not None,
        )

    @property
    def asked(self) -> int:
        """Return how often a snapshot was asked for: each has all that was known at its number."""
        return self._taking.asked

    @property
    def newest(self) -> int:
        """Return the number of the newest snapshot."""
        return self._taking.finished

    @property
    def compilation(self) -> int:
        """Return the number of the last compilation that was asked for."""
        return self._compiling.asked

    @property
    def compiled(self) -> int:
        """Return the number of the compilation whose result is published, or was refused."""
        last, refused = self._publication.last, self._refused
        return max(one.compilation if one else 0 for one in (last, refused))

    @property
    def published(self) -> Wanted | None:
        """Return what that was compiled from, but for workloads that have left since."""
        return self._publication.last.wanted if self._publication.last else None

    # ---- the snapshot

    def retake(self, inputs: Callable[[], Inputs]) -> None:
        """Have a snapshot taken of ``inputs`` as they are when that begins.

        Taking it allocates virtual addresses to services that have none, and stores them.
        """
        self._inputs = inputs
        self._taking.ask()
        self._publication.closing.ask()

    def finish_snapshot(self) -> None:
        """Take here and now the snapshot that was asked for."""
        self._taking.finish()

    def _begin_taking(self) -> Callable[[], _Taken]:
        self._step(Step.READING)
        return functools.partial(self._taken, Given.of(self._store), self._inputs())

    def _taken(self, given: Given, inputs: Inputs) -> _Taken:
        taken = snapshots.take(
            given,
            inputs.members,
            self._options,
            self._service_cidr,
            self._renamed.all(inputs.elsewhere),
            listed=inputs.listed,
            registry=self._registry,
        )
        snapshot = _closed(_with_keys(taken.snapshot, inputs), given)
        accepted = self._accepted.findings(given.stored, given.stored_in)
        # The addresses are on disk before anything uses them.
        written = self._store.write_addresses(taken.addresses)
        return _Taken(snapshot, (*taken.problems, *map(str, accepted)), written)

    def _take(self, taken: _Taken) -> None:
        """Make a snapshot the newest."""
        self._step(Step.READ)
        self._store.take_addresses(taken.written)
        for problem in sorted(set(taken.problems) - set(self.problems)):
            _log.warning("%s", problem, extra={"MESHD_EVENT": "config"})
        self.problems, self.snapshot = taken.problems, taken.snapshot
        self._changed()

    def refusals(
        self,
        inputs: Inputs,
        given: Given,
        after: Mapping[Key, Object],
        changed: Collection[Key],
    ) -> tuple[str, ...]:
        """Return what cannot be compiled of a configuration that is wanted, a line each, as far as
        what is changed matters to it.

        Nothing is stored or put in force: a thread may call it. Raises InvalidInputError.
        """
        given = given.with_objects(after, changed)
        snapshot = build_snapshot(
            given.every,
            inputs.members,
            self._options,
            given.addresses,
            elsewhere=Renamed().all(inputs.elsewhere),
            listed=inputs.listed,
        )
        return refused(_closed(snapshot, given), after, changed, self._isolating)

    def wanted(self, inputs: Inputs, given: Given) -> Snapshot:
        """Return the snapshot of a configuration, with the workloads of all nodes as its own."""
        found = build_snapshot(
            given.every,
            (*inputs.members, *Renamed().all(inputs.elsewhere)),
            self._options,
            given.addresses,
            listed=inputs.listed,
        )
        return _closed(_with_keys(found, inputs), given)

    # ---- its publication

    def publish(
        self, snapshot: Snapshot, served: Mapping[str, Workload], resolvers: Mapping[str, str]
    ) -> None:
        """Have this compiled and published, if anything has changed on which the result depends.

        Listeners of workloads that are served no more go at once: nothing else is to be compiled
        for that. Raises InvalidInputError if this was compiled, and cannot be; what is published
        stays.
        """
        wanted = Wanted(snapshot, served, resolvers)
        before, self._wanted_number = self._wanted_number, self.newest
        if self._refused and self._refused.error and wanted == self._refused.wanted:
            raise self._refused.error
        if wanted == self._wanted:
            if self.newest > before and self.published is self._wanted:
                self._publication.renumber(self.newest)
            return
        self._wanted = wanted
        self._publication.leave()
        self._compiling.ask()

    def finish_publication(self) -> None:
        """Compile and publish here and now what is wanted."""
        self._compiling.finish()
        self.finish_closing()

    def finish_closing(self) -> None:
        """Close here and now what has become stricter."""
        self._publication.closing.finish()

    def _begin_compiling(self) -> Callable[[], Compiled]:
        if self._wanted is None:
            raise RuntimeError("a compilation was asked for, but nothing to compile")
        self._step(Step.COMPILING)
        numbers = self._wanted_number, self._compiling.asked
        return functools.partial(self._compile, self._wanted, *numbers)

    def _compile(self, wanted: Wanted, number: int, compilation: int) -> Compiled:
        try:
            compiled = self._isolating.compile(wanted.seen, wanted.served)
        except InvalidInputError as error:
            return Compiled(wanted, number, compilation, error=error.with_traceback(None))
        return Compiled(
            wanted,
            number,
            compilation,
            self._packer.pack(compiled),
            self._compiler.entrances,
            self._compiler.reached,
            self._compiler.guarded,
            self._isolating.problems,
            self._compiler.credentials,
            self._isolating.compiled,
        )

    def _compiled(self, compiled: Compiled) -> None:
        if compiled.wanted is self._wanted:
            compiled = msgspec.structs.replace(compiled, number=self._wanted_number)
        self._refused = compiled if compiled.error else None
        if not compiled.error:
            self._publication.take(compiled, is_newest=compiled.number >= self.asked)
            self._uncompiled.say(compiled.problems)
            self._unusable.say(_unusable(compiled.credentials))
        self._changed()

    def _taken_over(self) -> None:
        """Note that what was compiled is published, or waits for what is closed of it."""
        self._step(Step.COMPILED)
        self._changed()

    def _served(self) -> AbstractSet[str]:
        return self._wanted.served.keys() if self._wanted else frozenset()

    def _known(self) -> Known:
        """Return what may close something, before there is a snapshot with it."""
        store = self._store
        objects, root = (store.objects.values(), store.closed), self._options.root_namespace
        missing = snapshots.missing(store.policies_in_use, store.lost, store.objects)
        return Known(self.asked, objects, bool(store.lost), self._inputs().members, root, missing)

    def credential_problems(self) -> tuple[str, ...]:
        return _unusable(self._credentials)

    @property
    def _credentials(self) -> tuple[UsedCredential, ...]:
        return self._publication.last.credentials if self._publication.last else ()

    @property
    def in_force(self) -> Snapshot | None:
        """Return the snapshot that was compiled last, without what was left out of it."""
        return self._publication.last.in_force if self._publication.last else None

    @property
    def entrances(self) -> Entrances:
        """Return what the listeners for incoming connections were compiled from."""
        return self._publication.last.entrances if self._publication.last else {}

    @property
    def uncompiled(self) -> tuple[str, ...]:
        """Return what is left out because it cannot be compiled, a line each."""
        return self._publication.last.problems if self._publication.last else ()

    @property
    def faults(self) -> tuple[str, ...]:
        """Return why there is no newer snapshot or publication, by a fault of meshd, a line
        each."""
        return tuple(job.problem for job in self._jobs if job.problem)

    def not_in_force(self) -> Iterator[str]:
        """Yield what is left out or cannot be used, a line each; not what is missing, which may
        come."""
        yield from self.uncompiled
        for used in self._credentials:
            if not used.credential.missing and used.unusable:
                yield used.unusable


def _unusable(credentials: Iterable[UsedCredential]) -> tuple[str, ...]:
    now = time.time()
    return tuple(filter(None, (used.problem(now) for used in credentials)))


def _with_keys(snapshot: Snapshot, inputs: Inputs) -> Snapshot:
    return msgspec.structs.replace(snapshot, token_keys=inputs.token_keys)


def _closed(snapshot: Snapshot, given: Given) -> Snapshot:
    """Return the snapshot, closed if configuration that was in force cannot be read."""
    if not given.is_partly_lost:
        return snapshot
    return closed_for_lost(snapshot, given.given_up, given.missing)
