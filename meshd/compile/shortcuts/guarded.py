"""Who may send what to workloads: what of compiled resources says so, and what of that follows from
AuthorizationPolicies alone. Pure.

A policy that comes needs no compilation to be in force: of what was compiled last, the listeners
and route tables that judge are made anew under other rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import Message

from meshd.compile.clients import Client, Clients, OfClients
from meshd.compile.compiled import Compiled, Kind, by_name
from meshd.compile.envoy.listeners import judged_listener
from meshd.compile.envoy.routes import judged_table
from meshd.compile.memo import Memo
from meshd.compile.names import gateway_listener_name
from meshd.compile.plan.authorization import Authorization
from meshd.compile.policy.authorization import Policies, authorization, of_connections
from meshd.compile.policy.meanwhile import meanwhile
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload

Guards = Mapping[str, Authorization]
"""By the workloads' uids."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Guarded:
    """What was compiled last, as far as it says who may send what. Told by identity."""

    snapshot: Snapshot
    clients: Clients
    traffic: Compiled

    def stricter(self, policies: Policies, members: Iterable[Workload]) -> Guards:
        """Return the rules, until these policies are compiled, for each workload to which they
        allow less than was compiled."""
        found: dict[str, Authorization] = {}
        for one in members:
            if (client := self.clients.get(one.uid)) is None:
                continue
            guard = meanwhile(client.guard, authorization(policies, one, self.snapshot.options))
            if guard is not None and guard is not client.guard:
                found[one.uid] = guard
        return found

    def under(self, guards: Guards) -> Iterator[tuple[str, Message]]:
        """Yield, by name, what judges under other rules for some workloads: listeners, but for
        workloads' own, and route tables."""
        if not guards:
            return
        clients = {
            uid: dataclasses.replace(one, guard=guards.get(uid, one.guard))
            for uid, one in self.clients.items()
        }
        made = OfClients(self.snapshot, clients, Memo())
        for those in (made.inbound(), made.local(), made.inbound_routes()):
            yield from by_name(those).items()
        for uid in guards.keys() & clients.keys():
            yield from by_name(self._of_gateway(clients[uid], guards[uid])).items()

    def _of_gateway(self, client: Client, guard: Authorization) -> Iterator[Message]:
        """Yield a gateway's own: they are those of before, but for what they judge by."""
        routes, listeners = self.traffic[Kind.ROUTE], self.traffic[Kind.LISTENER]
        for name, _, _ in client.gateway.route_configurations():
            if (table := routes.get(name)) is not None:
                yield judged_table(table, guard)
        for number in client.gateway.ports:
            name = gateway_listener_name(client.workload.uid, number)
            if (found := listeners.get(name)) is not None:
                yield judged_listener(found, of_connections(guard))
