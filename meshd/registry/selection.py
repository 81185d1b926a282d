"""The backends of services, found by labels. Pure.

A workload and a WorkloadEntry are the same to a service: an address with labels and an account.
"""

from __future__ import annotations

import bisect
import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from meshd.api.locality import NETWORK, locality_of
from meshd.api.service_entry.types import WorkloadEntry, WorkloadEntrySpec
from meshd.model.hbone import takes_tunnels
from meshd.model.listed import SERVICE_NAME, ListedEndpoint
from meshd.model.service import MUTUAL_TLS, TLS_MODE, Endpoint
from meshd.model.workload import Workload

_Label = tuple[str, str, str]
"""A namespace, and a label's name and value."""


class Source(enum.IntEnum):
    """The kinds of things that a backend is made of, in the order in which they are selected."""

    HERE = 0
    """A workload of this node."""
    ELSEWHERE = 1
    """A workload of another node."""
    ENTRY = 2
    """A WorkloadEntry."""
    LISTED = 3
    """An endpoint that Kubernetes lists."""


class Backend(msgspec.Struct, frozen=True):
    """One place where something runs."""

    namespace: str
    address: str
    labels: Mapping[str, str]
    service_account: str
    ports: Mapping[str, int]
    """Named ports: those that a workload declares, or a WorkloadEntry maps."""
    mutual_tls: bool
    workload: str = ""
    name: str = ""
    weight: int = 1
    ready: bool = True
    locality: str = ""
    node: str = ""
    captured_ports: frozenset[int] | None = None
    """Ports on which mutual TLS is spoken at all; None: all."""
    hbone: bool = False
    """It runs on another node, which says that it can be reached by a tunnel."""
    source: Source = Source.HERE
    order: str = ""
    """The text by which it is ordered among those of its source."""

    @classmethod
    def of_workload(
        cls,
        workload: Workload,
        enrolled: bool,
        node: str = "",
        locality: str = "",
        source: Source = Source.HERE,
    ) -> Backend:
        """Return the backend of a workload; ``node`` and ``locality`` fill in what it does not say
        itself.

        The label for mutual TLS can only forbid it.
        """
        return cls(
            namespace=workload.namespace,
            address=workload.addresses[0] if workload.addresses else "",
            labels=workload.labels,
            service_account=workload.service_account,
            ports={port.name: port.number for port in workload.ports if port.name},
            mutual_tls=enrolled and workload.labels.get(TLS_MODE, MUTUAL_TLS) == MUTUAL_TLS,
            workload=workload.uid,
            name=workload.hostname or workload.name,
            ready=workload.ready,
            locality=locality_of(workload.labels, workload.locality or locality),
            node=workload.node or node,
            captured_ports=frozenset(port.number for port in workload.ports)
            if workload.host
            else None,
            hbone=source is Source.ELSEWHERE and takes_tunnels(workload),
            source=source,
            order=workload.uid,
        )

    @classmethod
    def of_entry(cls, entry: WorkloadEntry) -> Backend:
        listed = cls.of_listed(entry.spec, entry.metadata.namespace, entry.metadata.labels)
        meta = entry.metadata
        return msgspec.structs.replace(
            listed,
            name=meta.name,
            source=Source.ENTRY,
            order="\0".join((meta.creation_timestamp or "", meta.namespace, meta.name)),
        )

    @classmethod
    def of_slice(cls, one: ListedEndpoint, workload: Backend | None) -> Backend:
        """Return the backend of an endpoint that Kubernetes lists; ``workload``: what runs at its
        address, if that is known."""
        base = workload or cls(one.namespace, one.address, {}, "", {}, mutual_tls=False)
        return msgspec.structs.replace(
            base,
            namespace=one.namespace,
            address=one.address,
            labels={**base.labels, SERVICE_NAME: one.service},
            ports=one.ports,
            name=one.hostname or base.name,
            ready=one.ready and (base.ready or not workload),
            locality=base.locality or one.locality,
            node=base.node or one.node,
            source=Source.LISTED,
            order=f"{one.service}/{one.address}",
        )

    @classmethod
    def of_listed(
        cls, spec: WorkloadEntrySpec, namespace: str, labels: Mapping[str, str] | None = None
    ) -> Backend:
        """Return the backend of a listed endpoint.

        Its label for mutual TLS wins; without one, it speaks mutual TLS if it has a service
        account.
        """
        labels = {**(labels or {}), **spec.labels}
        if spec.network:
            labels.setdefault(NETWORK, spec.network)
        mode = labels.get(TLS_MODE, MUTUAL_TLS if spec.service_account else "disabled")
        return cls(
            namespace=namespace,
            address=spec.address,
            labels=labels,
            service_account=spec.service_account or "",
            ports=spec.ports,
            mutual_tls=mode == MUTUAL_TLS,
            locality=spec.locality or locality_of(labels, ""),
            # 0 is what the API calls unspecified
            weight=spec.weight or 1,
        )

    def endpoint(self, port: int, service_port: int) -> Endpoint:
        return Endpoint(
            address=self.address,
            port=port,
            service_port=service_port,
            labels=dict(self.labels),
            service_account=self.service_account,
            namespace=self.namespace,
            workload=self.workload,
            name=self.name,
            mutual_tls=self.mutual_tls
            and (self.captured_ports is None or port in self.captured_ports),
            weight=self.weight,
            ready=self.ready,
            locality=self.locality,
            node=self.node,
            hbone=self.hbone and self.mutual_tls,
        )


class Backends:
    """Backends by namespace and label, so that many services find theirs quickly.

    The order in which they are selected follows from the backends alone, not from the order in
    which they were added.
    """

    def __init__(self, backends: Iterable[Backend] = ()) -> None:
        self._by_label: dict[_Label, list[Backend]] = defaultdict(list)
        """The lists are sorted."""
        for backend in sorted(backends, key=_order):
            for label in _labels(backend):
                self._by_label[label].append(backend)

    def replace(self, gone: Iterable[Backend], come: Iterable[Backend]) -> None:
        """Replace backends; ``gone`` are the identical objects that were added before."""
        if not self._by_label:
            self._by_label = Backends(come)._by_label
            return
        for backend in gone:
            for label in _labels(backend):
                self._remove(label, backend)
        for backend in come:
            for label in _labels(backend):
                bisect.insort(self._by_label[label], backend, key=_order)

    def _remove(self, label: _Label, backend: Backend) -> None:
        listed = self._by_label[label]
        place = bisect.bisect_left(listed, _order(backend), key=_order)
        while listed[place] is not backend:  # others may have the same name
            place += 1
        del listed[place]
        if not listed:
            del self._by_label[label]

    def select(self, namespace: str, selector: Mapping[str, str]) -> list[Backend]:
        """Return the backends that have all labels of the selector; an empty selector selects
        nothing."""
        if not selector:
            return []
        lists = [self._by_label.get((namespace, key, value), []) for key, value in selector.items()]
        return [
            backend
            for backend in min(lists, key=len)
            if all(backend.labels.get(key) == value for key, value in selector.items())
        ]


def _order(backend: Backend) -> tuple[Source, str]:
    return backend.source, backend.order


def _labels(backend: Backend) -> Iterator[_Label]:
    """Yield the labels by which a backend is found, if it has an address."""
    for key, value in backend.labels.items() if backend.address else ():
        yield backend.namespace, key, value
