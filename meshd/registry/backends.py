"""The backends of all services, each made anew only when its workload has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from meshd.api.base import Key
from meshd.api.kubernetes.types import Namespace
from meshd.api.networking import Gateway
from meshd.api.service_entry.types import WorkloadEntry
from meshd.base.sequence_difference import SequenceDifference
from meshd.model.listed import ListedEndpoint
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry import membership
from meshd.registry.selection import Backend, Backends, Source


class Listed(NamedTuple):
    """An endpoint that Kubernetes lists, and the backend of the workload that it is."""

    endpoint: ListedEndpoint
    workload: Backend | None


_Made = TypeVar("_Made", Workload, WorkloadEntry, Listed)


class _Change(NamedTuple, Generic[_Made]):
    """The sources that were removed and those that were added, each with its backend. A source
    that has changed is both."""

    gone: Collection[tuple[_Made, Backend]]
    come: Collection[tuple[_Made, Backend]]


class _Group(Generic[_Made]):
    """The backends of sources, in the order of these. Sources at the beginning and the end that are
    the identical objects are not compared further."""

    def __init__(self, name: Callable[[_Made], object]) -> None:
        self._name = name
        self.sources: tuple[_Made, ...] = ()
        self.backends: tuple[Backend, ...] = ()

    def follow(self, sources: Sequence[_Made], make: Callable[[_Made], Backend]) -> _Change[_Made]:
        given = tuple(sources)
        difference = SequenceDifference.between(self.sources, given)
        before = zip(difference.of_old(self.sources), difference.of_old(self.backends), strict=True)
        gone = {id(pair[1]): pair for pair in before}
        known = {self._name(pair[0]): pair for pair in gone.values()}
        made, come = list[Backend](), list[tuple[_Made, Backend]]()
        for source in difference.of_new(given):
            pair = known.pop(self._name(source), None)
            if pair is not None and pair[0] == source:
                backend = gone.pop(id(pair[1]))[1]
            else:
                backend = make(source)
                come.append((source, backend))
            made.append(backend)
        self.sources, self.backends = given, difference.replaced(self.backends, made)
        return _Change(gone.values(), come)


class Registered:
    """The backends of workloads and WorkloadEntries."""

    def __init__(self, options: MeshOptions | None = None) -> None:
        self._options = options or MeshOptions()
        self._gateways: tuple[Gateway, ...] = ()
        self._begin({})

    def _begin(self, namespaces: Mapping[str, Namespace]) -> None:
        self._namespaces = namespaces
        self._own = _Group[Workload](_uid)
        self._elsewhere = _Group[Workload](_uid)
        self._entries = _Group[WorkloadEntry](_key)
        self._listed = _Group[Listed](_place)
        self._accounts = Counter[tuple[str, str]]()
        """The accounts of workloads that Gateways select, each with how many have it."""
        self.backends = Backends()

    def follow(
        self,
        own: Sequence[Workload],
        elsewhere: Sequence[Workload],
        entries: Sequence[WorkloadEntry],
        namespaces: Mapping[str, Namespace],
        listed: Sequence[ListedEndpoint] = (),
    ) -> list[Backend]:
        """Make the backends of these; return each that has changed, as it was and as it is."""
        forgotten = list[Backend]()
        if namespaces != self._namespaces:  # each backend depends on them
            groups = self._own, self._elsewhere, self._entries, self._listed
            forgotten = [backend for group in groups for backend in group.backends]
            self._begin(namespaces)
        workloads = (
            self._own.follow(own, self._of_own),
            self._elsewhere.follow(elsewhere, self._of_elsewhere),
        )
        for change in workloads:
            self._accounts.subtract(self._selected(one for one, _ in change.gone))
            self._accounts.update(self._selected(one for one, _ in change.come))
        self._accounts = +self._accounts  # nothing stays of accounts that are gone
        unknown = _unknown(entries, (*own, *elsewhere)) if entries else ()
        found = self._with_workloads(listed) if listed else ()
        changes = (
            *workloads,
            self._entries.follow(unknown, Backend.of_entry),
            self._listed.follow(found, lambda one: Backend.of_slice(*one)),
        )
        gone = [backend for change in changes for _, backend in change.gone]
        come = [backend for change in changes for _, backend in change.come]
        self.backends.replace(gone, come)
        return [*forgotten, *gone, *come]

    def _with_workloads(self, listed: Iterable[ListedEndpoint]) -> list[Listed]:
        """Return the endpoints, each with the backend of what runs at its address in its
        namespace."""
        running: dict[tuple[str, str], Backend] = {}
        for group in (self._elsewhere, self._own):
            for workload, backend in zip(group.sources, group.backends, strict=True):
                running.update(((workload.namespace, ip), backend) for ip in workload.addresses)
        return [Listed(one, running.get((one.namespace, one.address))) for one in listed]

    def addresses(self) -> Iterator[str]:
        """Yield the addresses of all that has a backend."""
        for workload in (*self._own.sources, *self._elsewhere.sources):
            yield from workload.addresses
        for entry in self._entries.sources:
            yield entry.spec.address
        for one in self._listed.sources:
            yield one.endpoint.address

    def _of_own(self, workload: Workload) -> Backend:
        options, enrolled = self._options, self._is_enrolled(workload)
        return Backend.of_workload(workload, enrolled, options.node, options.locality)

    def _of_elsewhere(self, workload: Workload) -> Backend:
        return Backend.of_workload(workload, self._is_enrolled(workload), source=Source.ELSEWHERE)

    def _is_enrolled(self, workload: Workload) -> bool:
        return membership.of_workload(workload, self._namespaces).enrolled

    def _selected(self, workloads: Iterable[Workload]) -> Iterator[tuple[str, str]]:
        """Yield the accounts of those of the mesh that a Gateway selects."""
        selection = self._options.gateway_selection
        for one in workloads if self._gateways else ():
            labels, namespace = one.labels, one.namespace
            if any(found.selects(labels, namespace, selection) for found in self._gateways) and (
                self._is_enrolled(one)
            ):
                yield namespace, one.service_account

    def gateway_accounts(self, gateways: tuple[Gateway, ...]) -> tuple[tuple[str, str], ...]:
        """Return namespace and service account of each workload of the mesh that a Gateway
        selects."""
        if gateways != self._gateways:
            self._gateways = gateways
            every = (*self._own.sources, *self._elsewhere.sources)
            self._accounts = Counter(self._selected(every))
        return tuple(sorted(self._accounts))


def _uid(workload: Workload) -> str:
    return workload.uid


def _key(entry: WorkloadEntry) -> Key:
    return entry.key


def _place(listed: Listed) -> tuple[str, str, str]:
    one = listed.endpoint
    return one.namespace, one.service, one.address


def _unknown(
    entries: Sequence[WorkloadEntry], workloads: Iterable[Workload]
) -> Sequence[WorkloadEntry]:
    """Return the entries that are not known as workloads: one that declares a service of a host
    is."""
    hosted = {(one.namespace, one.name) for one in workloads if one.host}
    return [one for one in entries if (one.metadata.namespace, one.metadata.name) not in hosted]
