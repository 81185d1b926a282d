"""The objects of a configuration by kind, oldest first. Pure."""

from __future__ import annotations

import bisect
import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import TypeVar

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.base import Object
from meshd.api.kubernetes.types import Namespace, Secret, Service
from meshd.api.networking import DestinationRule, Gateway, VirtualService
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.service_entry.types import ServiceEntry, WorkloadEntry
from meshd.base.sequence_difference import SequenceDifference
from meshd.model.closed_workload import ClosedWorkload

_T = TypeVar("_T", bound=Object)


@dataclasses.dataclass(frozen=True, slots=True)
class SortedObjects:
    """The objects by kind. A kind of which no object has changed since the last time is the very
    tuple, or dictionary, that it was."""

    all: tuple[Object, ...]
    """As they were given."""
    services: tuple[Service | ServiceEntry, ...]
    namespaces: dict[str, Namespace]
    workload_entries: tuple[WorkloadEntry, ...]
    closed_workloads: tuple[ClosedWorkload, ...]
    virtual_services: tuple[VirtualService, ...]
    destination_rules: tuple[DestinationRule, ...]
    gateways: tuple[Gateway, ...]
    peer_authentications: tuple[PeerAuthentication, ...]
    authorization_policies: tuple[AuthorizationPolicy, ...]
    request_authentications: tuple[RequestAuthentication, ...]
    secrets: dict[str, Secret]
    """By ``NAMESPACE/NAME``."""

    @classmethod
    def of(cls, objects: Iterable[Object], before: SortedObjects | None = None) -> SortedObjects:
        given = tuple(objects)
        if before is not None:
            difference = SequenceDifference.between(before.all, given)
            changes = _Changes(difference.of_old(before.all), difference.of_new(given))
            if changes.are_none:
                return before
            if (found := before._changed(changes)) is not None:
                return dataclasses.replace(found, all=difference.replaced(before.all, changes.come))
        ordered = sorted(given, key=_age)
        found = cls(
            all=given,
            services=tuple(one for one in ordered if isinstance(one, Service | ServiceEntry)),
            namespaces={one.metadata.name: one for one in ordered if isinstance(one, Namespace)},
            workload_entries=tuple(
                one
                for one in ordered
                if isinstance(one, WorkloadEntry) and not isinstance(one, ClosedWorkload)
            ),
            closed_workloads=tuple(one for one in ordered if isinstance(one, ClosedWorkload)),
            virtual_services=tuple(one for one in ordered if isinstance(one, VirtualService)),
            destination_rules=tuple(one for one in ordered if isinstance(one, DestinationRule)),
            gateways=tuple(one for one in ordered if isinstance(one, Gateway)),
            peer_authentications=tuple(
                one for one in ordered if isinstance(one, PeerAuthentication)
            ),
            authorization_policies=tuple(
                one for one in ordered if isinstance(one, AuthorizationPolicy)
            ),
            request_authentications=tuple(
                one for one in ordered if isinstance(one, RequestAuthentication)
            ),
            secrets={
                f"{one.metadata.namespace}/{one.metadata.name}": one
                for one in ordered
                if isinstance(one, Secret)
            },
        )
        return found if before is None else _with_known(found, before)

    def _changed(self, changes: _Changes) -> SortedObjects | None:
        """Return the objects after changes, but for ``all``; None: they have to be sorted anew."""
        if any(isinstance(one, Namespace | Secret) for one in (*changes.gone, *changes.come)):
            return None
        try:
            return dataclasses.replace(
                self,
                services=changes.applied(self.services, Service, ServiceEntry),
                workload_entries=changes.applied(
                    self.workload_entries, WorkloadEntry, but=ClosedWorkload
                ),
                closed_workloads=changes.applied(self.closed_workloads, ClosedWorkload),
                virtual_services=changes.applied(self.virtual_services, VirtualService),
                destination_rules=changes.applied(self.destination_rules, DestinationRule),
                gateways=changes.applied(self.gateways, Gateway),
                peer_authentications=changes.applied(self.peer_authentications, PeerAuthentication),
                authorization_policies=changes.applied(
                    self.authorization_policies, AuthorizationPolicy
                ),
                request_authentications=changes.applied(
                    self.request_authentications, RequestAuthentication
                ),
            )
        except _SameAgeError:
            return None


class _SameAgeError(Exception):
    """Objects of one kind have the same age and name: their order follows from that in which they
    were given."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Changes:
    gone: tuple[Object, ...]
    come: tuple[Object, ...]

    @property
    def are_none(self) -> bool:
        return not self.gone and not self.come

    def applied(
        self, before: tuple[_T, ...], *kinds: type[_T], but: type[object] | tuple[()] = ()
    ) -> tuple[_T, ...]:
        """Return the objects of one list after the changes: the very list if none is of its kinds.

        Raises _SameAgeError.
        """
        come = [one for one in self.come if isinstance(one, kinds) and not isinstance(one, but)]
        if not come and not any(isinstance(one, kinds) for one in self.gone):
            return before
        gone = set(map(id, self.gone))
        kept = [one for one in before if id(one) not in gone]
        for one in come:
            age = _age(one)
            place = bisect.bisect_left(kept, age, key=_age)
            if place < len(kept) and _age(kept[place]) == age:
                raise _SameAgeError
            kept.insert(place, one)
        return tuple(kept)


def _with_known(found: SortedObjects, before: SortedObjects) -> SortedObjects:
    return dataclasses.replace(
        found,
        services=_kept(before.services, found.services),
        namespaces=before.namespaces if before.namespaces == found.namespaces else found.namespaces,
        workload_entries=_kept(before.workload_entries, found.workload_entries),
        virtual_services=_kept(before.virtual_services, found.virtual_services),
        destination_rules=_kept(before.destination_rules, found.destination_rules),
        gateways=_kept(before.gateways, found.gateways),
        peer_authentications=_kept(before.peer_authentications, found.peer_authentications),
        authorization_policies=_kept(before.authorization_policies, found.authorization_policies),
        request_authentications=_kept(
            before.request_authentications, found.request_authentications
        ),
        secrets=before.secrets if before.secrets == found.secrets else found.secrets,
    )


def _kept(before: tuple[_T, ...], found: tuple[_T, ...]) -> tuple[_T, ...]:
    return before if are_the_same(before, found) else found


def are_the_same(one: Sequence[object], other: Sequence[object]) -> bool:
    """Return whether two sequences consist of the very same objects."""
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _age(found: Object) -> tuple[str, str, str]:
    """Return a key that sorts oldest first; an object without a time counts as oldest."""
    meta = found.metadata
    return meta.creation_timestamp or "", meta.namespace, meta.name
