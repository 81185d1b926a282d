"""Brings the node to what follows from all that it has been told.

Events change the facts (``known``); ``settle`` tells each port what follows from them, one step of
the workloads' lives at a time, until no further step follows. The order of events does not matter,
and neither does a restart between them: the records have what cannot be told again.

Nothing waits here. Snapshots are taken and compiled elsewhere, and settling is due again when that
is done; until then the workloads' lives go on with the newest snapshot, and as far as what is
published allows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping

import msgspec

from meshd.api.kubernetes.types import Namespace
from meshd.base.errors import MeshdError
from meshd.compile.gateway.ports import gateway_ports
from meshd.model.listed import ListedEndpoint
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Observation, Placement, Workload
from meshd.node import known as knowledge
from meshd.node.known import Known
from meshd.node.known_names import KnownNames
from meshd.node.ports import Ports
from meshd.node.publishing import Inputs
from meshd.node.telling import Telling
from meshd.registry import membership
from meshd.registry.membership import Enrolment
from meshd.workloads import addressing, groups, short_way
from meshd.workloads.lifecycle import Facts, Plan, step


class Reconciler:
    """The facts, and what is done about them. ``changed`` is called when settling is due."""

    def __init__(
        self, ports: Ports, options: MeshOptions, changed: Callable[[], None] = lambda: None
    ) -> None:
        """Begin with what is recorded."""
        self._ports = ports
        self._options = options
        self._changed = changed
        self._telling = Telling()
        self._namespaces: tuple[object, Mapping[str, Namespace]] = None, {}
        """Those of some objects, and these objects."""
        self._known_names = KnownNames()
        self._since: dict[str, int] = {}
        """Of each workload, the number of the first snapshot that has it as it is now."""
        self.known = ports.records.load()
        self.addresses_changed()

    # ---- events

    def register(self, wanted: Iterable[Workload]) -> None:
        """Raises MeshdError when that cannot be, or cannot be recorded: nothing has changed."""
        self._record(knowledge.registering(self.known, wanted))

    def unregister(self, uids: Iterable[str]) -> None:
        """Raises SystemRefusedError when it cannot be recorded: nothing has changed."""
        self._record(knowledge.unregistering(self.known, uids))

    def observed(self, observations: Iterable[Observation]) -> None:
        """Take all that capture sees now."""
        self._become(knowledge.observing(self.known, observations))

    def hear_of(self, elsewhere: Iterable[Workload]) -> None:
        """Take all workloads of other nodes."""
        self._become(knowledge.hearing(self.known, elsewhere))

    def list_endpoints(self, listed: Iterable[ListedEndpoint]) -> None:
        """Take all endpoints of Services that Kubernetes lists."""
        self._become(knowledge.listing(self.known, listed))

    def contacted(self) -> None:
        """Note that the server has heard what runs here; certificates that it did not give before
        are to be asked for again."""
        self._become(knowledge.contacted(self.known))

    def inputs_changed(self) -> None:
        """Note that the configuration or the health of a workload has changed."""
        self._ports.publisher.retake(self.inputs)
        self._changed()

    def addresses_changed(self) -> None:
        """Note that this host has other addresses than before."""
        registered = addressing.asked_only(self.known.registered, self._ports.own.every)
        self.known = knowledge.asking(self.known, registered)
        with contextlib.suppress(MeshdError):  # settling tries it again, and reports it
            self._ports.records.save(registered, self.known.lives)
        self.inputs_changed()

    def _record(self, after: Known) -> None:
        if after != self.known:
            self._ports.records.save(after.registered, after.lives)
            self._become(after)

    def _become(self, after: Known) -> None:
        before, self.known = self.known, after
        own, publisher = self._ports.own.preferred, self._ports.publisher
        now, then = knowledge.present(after, own), knowledge.present(before, own)
        if (after.elsewhere, after.listed, now) != (before.elsewhere, before.listed, then):
            publisher.retake(self.inputs)
            news = {uid: publisher.asked for uid in now if now[uid] != then.get(uid)}
            self._since = {uid: one for uid, one in self._since.items() if uid in now} | news
        if after != before:
            self._changed()

    # ---- what follows from the facts

    def present(self) -> dict[str, Workload]:
        """Return what is registered, with its present addresses."""
        return knowledge.present(self.known, self._ports.own.preferred)

    def members(self) -> dict[str, Workload]:
        """Return what is registered as WorkloadGroups want it."""
        objects, is_healthy = self._ports.objects.objects, self._ports.health.is_healthy
        return {
            uid: groups.as_member(one, objects, is_healthy) for uid, one in self.present().items()
        }

    def inputs(self) -> Inputs:
        members = tuple(self.members().values())
        known, keys = self.known, self._ports.issuers.keys
        return Inputs(members, known.elsewhere, known.listed, keys)

    def inside(self) -> dict[str, Workload]:
        """Return the members that are in the mesh, by uid."""
        return {uid: one for uid, one in self.members().items() if self.membership(one).enrolled}

    def membership(self, member: Workload) -> Enrolment:
        """Return whether a member is in the mesh, and why."""
        objects = self._ports.objects.objects
        if self._namespaces[0] is not objects:
            self._namespaces = objects, membership.namespaces(objects.values())
        return membership.of_workload(member, self._namespaces[1])

    def facts(self, inside: Mapping[str, Workload]) -> Facts:
        """Return the facts about the workloads' lives; ``inside``: the workloads in the mesh."""
        listeners, published = self._ports.proxies.listeners(), self._ports.publisher.published
        served = published.served if published else {}
        wanted = knowledge.pinned(inside, self.known.pins)
        return Facts(
            observations=self.known.observations,
            observed=self.known.observed,
            missing=listeners.missing,
            accepted=knowledge.served_as_wanted(listeners.accepted, served, wanted),
            present=listeners.present,
            bypass=self._bypass(inside),
            trust_domain=self._options.trust_domain,
        )

    def _bypass(self, inside: Mapping[str, Workload]) -> dict[str, tuple[int, ...]]:
        """Return the ports on which proxies listen themselves, as far as they were told of them.

        Until anything is published, they are what is wanted: as before the process began.
        """
        publisher = self._ports.publisher
        if publisher.published:
            seen = publisher.published.seen
        elif publisher.snapshot:
            seen = msgspec.structs.replace(publisher.snapshot, workloads=dict(inside))
        else:
            return {}
        return {uid: tuple(found.ports) for uid, found in gateway_ports(seen).items()}

    # ---- what is done

    def settle(self) -> None:
        """Tell all ports what follows. Raises MeshdError of the first that failed, when the others
        have been told."""
        self._telling.begin()
        probes = groups.probes(self.present().values(), self._ports.objects.objects)
        self._telling.tell(self._ports.health.check, probes)
        if snapshot := self._ports.publisher.snapshot:
            # Each time: what it writes depends on files of the workloads, too.
            workloads = self.inside().values()
            self._telling.repeat(self._ports.resolver.follow, self._names(snapshot), workloads)
            while self._advance(snapshot):
                pass
        self._telling.end()

    def _names(self, snapshot: Snapshot) -> Mapping[str, ServiceRecord]:
        """Return the services whose names are to be answered for."""
        published = self._ports.publisher.published
        self._known_names = self._known_names.followed(
            snapshot.services,
            published.seen.services if published else None,
            lead=self._ports.proxies.listeners().lead,
        )
        return self._known_names.told

    def _advance(self, snapshot: Snapshot) -> bool:
        """Carry out one step of all lives; return whether that may have brought another."""
        plan = self._recorded_plan()
        advanced = plan.lives != self.known.lives
        self.known = knowledge.advancing(self.known, plan.lives)
        self._act(snapshot, plan)
        return advanced

    def _recorded_plan(self) -> Plan:
        """Return the next step of all lives, recorded.

        A phase that cannot be recorded is not entered: its workload waits until a later round can
        record it, and no other workload waits for that.
        """
        lives, inside = self.known.lives, self.inside()
        facts = self.facts(inside)
        plan = step(lives, inside, facts)
        recorded = self._telling.tell(self._ports.records.save, self.known.registered, plan.lives)
        if recorded or knowledge.phases(plan.lives) == knowledge.phases(lives):
            return plan
        return step(lives, inside, facts, hold=True)

    def _act(self, snapshot: Snapshot, plan: Plan) -> None:
        """Carry out a plan.

        Nothing is published before capture has told where namespaces are pinned: proxies go on
        with what they have until then. Capture does not wait until proxies have been told: what
        must not come before that follows from the facts.
        """
        ports, known = self._ports, self.known
        published = ports.publisher.published
        acting = published.served if published else {}
        told = [one for uid, one in acting.items() if uid in plan.served]
        identities = knowledge.with_acting(plan.identities, told, self._options.trust_domain)
        self._telling.tell(ports.certificates.allow, identities, known.contacts)
        if known.observed:
            served = knowledge.pinned(plan.served, known.pins)
            served = knowledge.seen(
                served,
                acting,
                {uid for uid, one in self._since.items() if one > ports.publisher.newest},
            )
            if self._options.short_way:
                open_to = short_way.open_to(
                    served, known.observations, ports.certificates.valid, self._options.trust_domain
                )
                snapshot = msgspec.structs.replace(snapshot, short_way=open_to)
            if not self._awaits_certificates(served):
                resolvers = ports.resolver.resolvers
                self._telling.repeat(ports.publisher.publish, snapshot, served, resolvers)
        placements = oldest_first(plan.placements, known.registered)
        self._telling.tell(ports.capture.place, placements, known.host_is_known)

    def _awaits_certificates(self, served: Mapping[str, Workload]) -> bool:
        """Return whether proxies, which go on with what they have, are not told anything yet: who
        takes the short way is not known, and connections that they have led there until now would
        be refused."""
        if not self._options.short_way or self._ports.publisher.published:
            return False
        domain = self._options.trust_domain
        uris = {short_way.uri_of(one, domain) for one in served.values()}
        return self._ports.certificates.is_waiting_for(uris)


def oldest_first(
    placements: tuple[Placement, ...], registered: Iterable[str]
) -> tuple[Placement, ...]:
    """Return the placements as their workloads were registered, since a port is of the first that
    declares it; what leaves was there before."""
    order = {uid: number for number, uid in enumerate(registered)}
    return tuple(sorted(placements, key=lambda one: order.get(one.workload.uid, -1)))
