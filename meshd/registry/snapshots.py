"""The snapshot of this moment, from the configuration and the registered workloads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from meshd.api.base import Key, Object
from meshd.api.finding import Finding
from meshd.config.store import Store
from meshd.model.listed import ListedEndpoint
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry.addresses import VirtualAddresses
from meshd.registry.registry import Registry
from meshd.registry.unasked_policies import unasked
from meshd.registry.unserved_gateways import unserved


class Given(msgspec.Struct, frozen=True):
    """The content of a store at one moment, frozen."""

    objects: tuple[Object, ...]
    closed: tuple[Object, ...]
    """The replacements of objects that are not in force."""
    addresses: VirtualAddresses
    """Virtual addresses by host, as they were stored last."""
    revision: int
    findings: tuple[Finding, ...]
    lost: tuple[str, ...]
    """Paths of configuration that was in force and cannot be read, and objects that are
    ``given_up``."""
    stored: Mapping[Key, Object]
    """The objects that are in no file of the administrator."""
    stored_in: str
    """The path of the file that these are in; empty: of no file of this node."""
    given_up: tuple[Object, ...] = ()
    """The replacements that are not in force either."""
    policies: frozenset[Key] = frozenset()
    """The AuthorizationPolicies that were there when nothing was lost."""

    @classmethod
    def of(cls, store: Store) -> Given:
        objects = tuple(store.objects.values())
        given = objects, tuple(store.closed), store.addresses, store.revision, store.findings
        stored, policies = store.stored, store.policies_in_use
        return cls(*given, store.lost, *stored, tuple(store.given_up), policies)

    @property
    def missing(self) -> tuple[Key, ...]:
        """Return the AuthorizationPolicies that may be among what is lost."""
        if not self.policies or not self.lost:  # of a large mesh, keys take long
            return ()
        return missing(self.policies, self.lost, {one.key for one in self.objects})

    @property
    def every(self) -> tuple[Object, ...]:
        """Return the objects in force, and the replacements of others."""
        return (*self.objects, *self.closed)

    @property
    def is_partly_lost(self) -> bool:
        return bool(self.lost)

    def with_objects(self, objects: Mapping[Key, Object], changed: Collection[Key]) -> Given:
        """Return the same with these objects; those ``changed`` are among them or deleted, so that
        nothing is in force in place of them any more."""
        given_up = tuple(one for one in self.given_up if one.key not in changed)
        found = {str(one.key) for one in self.given_up} - {str(one.key) for one in given_up}
        return msgspec.structs.replace(
            self,
            objects=tuple(objects.values()),
            closed=tuple(
                one for one in self.closed if one.key not in objects and one.key not in changed
            ),
            given_up=given_up,
            policies=self.policies.difference(changed),
            lost=tuple(one for one in self.lost if one not in found),
        )


def missing(
    policies: frozenset[Key], lost: Collection[str], objects: Collection[Key]
) -> tuple[Key, ...]:
    """Return those of the policies that were in use, and are not among the objects, because
    something was lost."""
    return tuple(sorted(policies.difference(objects))) if policies and lost else ()


class Taken(msgspec.Struct, frozen=True):
    """A snapshot, and what was found on taking it."""

    snapshot: Snapshot
    addresses: VirtualAddresses
    """Virtual addresses by host: they are to be stored before the snapshot is used."""
    problems: tuple[str, ...]
    """Of files, of services without a free virtual address, of addresses and namespaces that are
    closed, of Gateways that nobody may serve, and of policies whose provider there is not."""


def take(
    given: Given,
    workloads: Iterable[Workload],
    options: MeshOptions,
    service_cidr: str,
    elsewhere: Iterable[Workload] = (),
    *,
    listed: Sequence[ListedEndpoint] = (),
    registry: Registry | None = None,
) -> Taken:
    """Return the snapshot.

    ``elsewhere``: workloads of other nodes, whose uids are none of this one. ``listed``: the
    endpoints of Services that Kubernetes lists. ``registry`` is the
    one that took the snapshot before. Raises ValueError if ``service_cidr`` is none.
    """
    known, own, others = registry or Registry(), tuple(workloads), tuple(elsewhere)
    objects = given.every
    allocation = known.allocation(objects, given.addresses, options, service_cidr)
    numbered = allocation.addresses, given.revision
    snapshot = known.snapshot(objects, own, options, *numbered, others, listed)
    wrong = (str(finding) for finding in given.findings if finding.severity == "error")
    left_out = (
        f"{host} has no virtual address: {service_cidr} is full; widen mesh.service_cidr"
        for host in allocation.left_out
    )
    refused = (
        f"connections to {one.address} are refused, because {one.key} is not in force"
        for one in snapshot.options.closed_addresses
    )
    denied = (
        f"everything is denied in namespace {key.namespace}, because {key} is among what was lost;"
        " apply it again"
        for key in given.missing
    )
    idle = unserved(snapshot.gateways, (*own, *others), options.gateway_selection)
    closed = unasked(snapshot.authorization_policies, options.providers)
    problems = (*wrong, *left_out, *refused, *denied, *idle, *closed)
    return Taken(snapshot, allocation.addresses, problems)
