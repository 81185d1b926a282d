"""What proxies are told: what was compiled last, without workloads that have left since, and with
what policies have closed since."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet

import msgspec

from meshd.base.errors import InvalidInputError
from meshd.compile.gateway.secrets import UsedCredential
from meshd.compile.names import workload_of
from meshd.compile.shortcuts.guarded import Guarded
from meshd.compile.shortcuts.reached import Reached
from meshd.model.pool import Pool
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload
from meshd.node.closing import Basis, Closing, Entrances, Known
from meshd.node.stages import Step
from meshd.xds.resources import Replacements, Resources, with_others, without_listeners


class Wanted(msgspec.Struct, frozen=True):
    """What a publication is compiled from."""

    snapshot: Snapshot
    served: Mapping[str, Workload]
    """The workloads for which proxies can open listeners, by uid, each with the path at which its
    namespace is pinned."""
    resolvers: Mapping[str, str]

    @property
    def seen(self) -> Snapshot:
        """Return the snapshot with the workloads that are served, and no others."""
        return msgspec.structs.replace(
            self.snapshot, workloads=dict(self.served), resolvers=dict(self.resolvers)
        )


class Compiled(msgspec.Struct, frozen=True):
    """What was compiled, or why that cannot be."""

    wanted: Wanted
    number: int
    """The number of changes that its snapshot has."""
    compilation: int
    """The number of the compilation itself."""
    resources: Mapping[Pool, Resources] = {}
    entrances: Entrances = {}
    reached: Reached | None = None
    guarded: Guarded | None = None
    problems: tuple[str, ...] = ()
    """What is left out because it cannot be compiled, a line each."""
    credentials: tuple[UsedCredential, ...] = ()
    in_force: Snapshot | None = None
    """The snapshot without what is left out."""
    error: InvalidInputError | None = None

    @property
    def basis(self) -> Basis:
        return Basis(self.entrances, self.number, self.reached, self.guarded)

    def without(self, gone: Collection[str]) -> Compiled:
        """Return the same without some workloads, by uid."""
        if not gone:
            return self
        here = {uid: one for uid, one in self.wanted.served.items() if uid not in gone}
        resources = {
            pool: without_listeners(of_pool, lambda name: workload_of(name) in gone)
            for pool, of_pool in self.resources.items()
        }
        wanted = msgspec.structs.replace(self.wanted, served=here)
        return msgspec.structs.replace(self, wanted=wanted, resources=resources)


class Publication:
    """What is published, and what waits until it is known what is to be closed of it.

    ``publish`` hands resources to the proxies, and ``served`` returns the workloads that are served
    now; ``known`` returns what may close something; ``changed`` is called when there is another
    publication.
    """

    def __init__(
        self,
        publish: Callable[[Mapping[Pool, Resources]], None],
        served: Callable[[], AbstractSet[str]],
        known: Callable[[], Known],
        changed: Callable[[], None],
        *,
        step: Callable[[Step], None],
    ) -> None:
        self._publish = publish
        self._served = served
        self._changed = changed
        self.last: Compiled | None = None
        """What is published, but for what is closed of it."""
        self._closed: Replacements = {}
        """What replaces some of it."""
        self._pending: Compiled | None = None
        self._closing = Closing(known, self._basis, self._number, self._close, step=step)
        self.closing = self._closing.work

    @property
    def is_pending(self) -> bool:
        """Return whether what was compiled last is not published yet."""
        return self._pending is not None

    def take(self, compiled: Compiled, *, is_newest: bool) -> None:
        """Publish what was compiled, with what policies have closed since it began; ``is_newest``:
        nothing has changed since."""
        if is_newest:
            self._put_in_force(compiled, {})
        else:
            self._pending = compiled
            self.closing.ask()

    def leave(self) -> None:
        """Publish the same, without the workloads that are not served any more."""
        if self.last and not self.last.wanted.served.keys() <= self._served():
            self._tell(self.last)

    def renumber(self, number: int) -> None:
        """Note that what is published has all changes up to a number: what has been closed of it
        may be opened again."""
        if self.last:
            self.last = msgspec.structs.replace(self.last, number=number)
            if self._closed:
                self.closing.ask()

    def _basis(self) -> Basis:
        newest = self._pending or self.last
        return newest.basis if newest else Basis()

    def _number(self) -> int:
        return self.last.number if self.last else 0

    def _close(self) -> None:
        """Publish with what is closed now."""
        for compiled in filter(None, (self._pending, self.last)):
            closed = self._closing.replacements(compiled.basis)
            if closed is not None:
                if compiled is not self.last or closed != self._closed:
                    self._put_in_force(compiled, closed)
                    self._changed()
                return

    def _put_in_force(self, compiled: Compiled, closed: Replacements) -> None:
        if compiled is not self.last:
            self._pending = None
        self._closed = closed
        self._tell(compiled)

    def _tell(self, compiled: Compiled) -> None:
        gone = compiled.wanted.served.keys() - self._served()
        self.last = compiled = compiled.without(gone)
        resources = compiled.resources
        closed = {pool: with_others(one, self._closed) for pool, one in resources.items()}
        self._publish(closed)
