"""Replaces objects whose configuration for the proxies would be too large. Pure."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import msgspec

from meshd.api.base import Object
from meshd.api.gateway.types import Server
from meshd.api.hosts import HostIndex, resolve
from meshd.api.networking import DestinationRule
from meshd.api.virtual_service.types import VirtualService
from meshd.base.sequence_difference import SequenceDifference
from meshd.compile.replacement.snapshots import NOTHING as NO_REPLACEMENTS
from meshd.compile.replacement.snapshots import Replacements
from meshd.model.bounded import BoundedRoutes, BoundedRule
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.excess import NOTHING, Excess
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import Snapshot
from meshd.model.weight import Weighed, weigh

Heavy = VirtualService | DestinationRule
"""The kinds of objects whose configuration can be too large."""


class _Looked(msgspec.Struct, frozen=True):
    """An object that was weighed."""

    found: Heavy
    excess: Excess
    instead: Heavy
    """Its replacement; the object itself if it needs none."""


class Weighing:
    """Weighs the objects of snapshots; weighs again only those that may have changed in weight.

    A change of endpoints alone changes no weight.
    """

    def __init__(self) -> None:
        self._services = _Services({})
        self._surroundings: tuple[object, ...] = ()
        self._given: tuple[Sequence[Heavy], Sequence[Heavy]] = (), ()
        """The VirtualServices and DestinationRules that were weighed last."""
        self._weighed: dict[int, _Looked] = {}
        """Each object in these surroundings, by its id."""
        self._lighter = NO_REPLACEMENTS
        """The replacements."""
        self.problems: tuple[str, ...] = ()
        """The objects of which something is left out, each with the reason."""

    def lighten(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with replacements for objects that are too large.

        A VirtualService loses its routes, and its hosts are closed; a DestinationRule loses its
        subsets and keeps its other settings. Where services, Gateways or delegates of other
        namespaces make too much, an object loses only its parts that are for these.
        """
        before, self._services = self._services, self._services.followed(snapshot.services)
        given = snapshot.virtual_services, snapshot.destination_rules
        mesh = _Mesh(snapshot, self._services)
        surroundings = mesh.surroundings
        is_same = surroundings == self._surroundings
        touched = self._services.others_than(before)
        if not is_same or touched or not all(map(operator.is_, given, self._given)):
            known = self._weighed if is_same else {}
            if touched:
                known = {
                    key: looked
                    for key, looked in known.items()
                    if not _may_name(looked.found, touched, snapshot.options.domain)
                }
            self._weighed = _weighed(snapshot, mesh, known)
            self._surroundings, self._given = surroundings, given
            heavy = [one for one in self._weighed.values() if one.excess is not NOTHING]
            self.problems = tuple(line for one in heavy for line in _said(one))
            instead = {id(one.found): one.instead for one in heavy}
            self._lighter = Replacements(snapshot, instead)
        return self._lighter.put_into(snapshot)


def _instead(found: Heavy, excess: Excess) -> Heavy:
    if excess is NOTHING:
        return found
    if isinstance(found, VirtualService):
        return ClosedRoutes.of(found) if excess.why else BoundedRoutes.of(found, excess)
    if not excess.why:
        return BoundedRule.of(found, excess)
    return msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, subsets=()))


def _said(looked: _Looked) -> Iterator[str]:
    key, excess = looked.found.key, looked.excess
    if not excess.why:
        yield from (f"{key}: {line}" for line in excess.lines())
    elif isinstance(looked.found, DestinationRule):
        what = "its subsets are left out, so requests to them are answered 503"
        yield f"{key}: {what}: {excess.why}"
    else:
        yield f"{key} is closed, so its hosts are not reached: {excess.why}"


def _weighed(snapshot: Snapshot, mesh: _Mesh, known: Mapping[int, _Looked]) -> dict[int, _Looked]:
    """Return all objects, weighed; those that ``known`` contains are not weighed again."""
    routed = (found for found in snapshot.virtual_services if not found.is_delegate)
    return {
        id(found): known.get(id(found)) or _look(found, mesh)
        for found in (*snapshot.destination_rules, *routed)
    }


def _look(found: Heavy, mesh: _Mesh) -> _Looked:
    excess = weigh(found, mesh)
    return _Looked(found, excess, _instead(found, excess))


class _Mesh:
    """The parts of a snapshot on which the weights of its objects depend."""

    def __init__(self, snapshot: Snapshot, services: _Services) -> None:
        self._snapshot = snapshot
        self._services = services
        self._gateways = {
            (found.metadata.namespace, found.metadata.name): found for found in snapshot.gateways
        }
        self._delegates = {
            (found.metadata.namespace, found.metadata.name): found
            for found in snapshot.virtual_services
            if found.is_delegate
        }

    @property
    def surroundings(self) -> tuple[object, ...]:
        """Return all but the object itself and services on which its weight depends."""
        return (
            self._gateways,
            self._delegates,
            self._snapshot.options.domain,
        )

    def full(self, host: str, owner: Object) -> str:
        domain = self._snapshot.options.domain
        return resolve(host, owner.metadata.namespace, domain, self._snapshot.services)

    def services(self, host: str) -> Iterable[Weighed]:
        return self._services.of(host)

    def servers(self, namespace: str, name: str) -> Sequence[Server]:
        found = self._gateways.get((namespace, name))
        return found.spec.servers if found else ()

    def delegate(self, namespace: str, name: str) -> VirtualService | None:
        return self._delegates.get((namespace, name))


def _may_name(found: Heavy, hosts: Container[str], domain: str) -> bool:
    """Return whether an object may be for one of these hosts, however it names them."""
    namespace = found.metadata.namespace
    for written in (found.spec.host,) if isinstance(found, DestinationRule) else found.spec.hosts:
        host = written.lower()
        full = f"{host}.{namespace}.svc.{domain}", f"{host}.svc.{domain}", f"{host}.{domain}"
        if host.startswith("*") or any(name in hosts for name in (host, *full)):
            return True
    return False


def _counted(record: ServiceRecord) -> tuple[str, str, tuple[int, ...]]:
    return record.namespace, record.host, record.routed_ports


class _Services:
    """Services by host, of all namespaces, whomever they are shown to."""

    def __init__(self, services: Mapping[str, ServiceRecord]) -> None:
        self._records = tuple(services.values())
        self.counted = tuple(map(_counted, self._records))
        """All that decides how much the services weigh."""
        self._by_host: dict[str, list[Weighed]] | None = None
        self._hosts = HostIndex(())

    def followed(self, services: Mapping[str, ServiceRecord]) -> _Services:
        """Return the services of another snapshot: these, if they weigh the same."""
        records = tuple(services.values())
        difference = SequenceDifference.between(self._records, records)
        come = map(_counted, difference.of_new(records))
        if tuple(come) != difference.of_old(self.counted):
            return _Services(services)
        self._records = records
        return self

    def others_than(self, before: _Services) -> frozenset[str]:
        """Return the hosts of services that weigh something else than before."""
        if before is self:
            return frozenset()
        difference = SequenceDifference.between(before._records, self._records)
        old, new = difference.of_old(before.counted), difference.of_new(self.counted)
        return frozenset(host for _, host, _ in {*old} ^ {*new})

    def of(self, host: str) -> Iterator[Weighed]:
        by_host = self._indexed()
        for one in self._hosts.covered(host) if host.startswith("*") else (host,):
            yield from by_host.get(one, ())

    def _indexed(self) -> Mapping[str, Sequence[Weighed]]:
        """Return the services by host, for which there is no need while no weight is asked for."""
        if self._by_host is None:
            found: dict[str, list[Weighed]] = defaultdict(list)
            for one in self.counted:
                found[one[1]].append(Weighed(*one))
            self._by_host, self._hosts = found, HostIndex(found)
        return self._by_host
