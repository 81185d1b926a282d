"""The backends of services, found by labels. Pure.

A workload and a WorkloadEntry are the same to a service: an address with labels and an account.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping

from meshd.api.locality import NETWORK, locality_of
from meshd.api.service_entry.types import WorkloadEntry, WorkloadEntrySpec
from meshd.model.service import MUTUAL_TLS, TLS_MODE, Endpoint
from meshd.model.workload import Workload


@dataclasses.dataclass(frozen=True, slots=True)
class Backend:
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

    @classmethod
    def of_workload(
        cls, workload: Workload, enrolled: bool, node: str = "", locality: str = ""
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
        )

    @classmethod
    def of_entry(cls, entry: WorkloadEntry) -> Backend:
        listed = cls.of_listed(entry.spec, entry.metadata.namespace, entry.metadata.labels)
        return dataclasses.replace(listed, name=entry.metadata.name)

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
        )


class Backends:
    """Backends by namespace and label, so that many services find theirs quickly."""

    def __init__(self, backends: Iterable[Backend]) -> None:
        self._by_label: dict[tuple[str, str, str], list[Backend]] = defaultdict(list)
        for backend in backends:
            if not backend.address:
                continue
            for key, value in backend.labels.items():
                self._by_label[backend.namespace, key, value].append(backend)

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
