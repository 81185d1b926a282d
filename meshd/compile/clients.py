"""The workloads of this node that are served, and the resources that they alone decide."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import Message

from meshd.compile import messages
from meshd.compile.gateway.ports import GatewayPorts
from meshd.compile.memo import Memo
from meshd.compile.plan.authorization import Authorization
from meshd.compile.policy.authorization import asks_server_name
from meshd.compile.policy.peer_authentication import PeerPolicy
from meshd.compile.policy.served import Ports
from meshd.compile.traffic import shares
from meshd.compile.traffic.hbone import Receiver, receiver
from meshd.compile.traffic.inbound_routes import Guards
from meshd.compile.upstream.fixed import resolver_of
from meshd.compile.visibility.scope import Scope
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Identity, Workload


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """A workload that is served."""

    workload: Workload
    """Its readiness may be old."""
    scope: Scope
    gateway: GatewayPorts
    served: Ports
    """Its ports to which services send."""
    policy: PeerPolicy
    """The connections that it accepts."""
    guard: Authorization | None = None
    """Who may send what to it; None: no policy is about it."""


Clients = Mapping[str, Client]
"""By uid, in order."""


def identity_of(workload: Workload, options: MeshOptions) -> Identity:
    return Identity(options.trust_domain, workload.namespace, workload.service_account)


class OfClients:
    """Makes what depends on the node's own workloads, and on no service but by the ports that it
    sends to."""

    def __init__(self, snapshot: Snapshot, clients: Clients, memo: Memo) -> None:
        self._snapshot = snapshot
        self._options = snapshot.options
        self._clients = clients
        self._served = {uid: client.served for uid, client in clients.items()}
        self._memo = memo

    @functools.cached_property
    def guards(self) -> Guards:
        """Return who may send what to the clients that policies are about."""
        return {uid: one.guard for uid, one in self._clients.items() if one.guard is not None}

    def listeners(self, client: Client, requests: tuple[int, ...]) -> Iterator[Message]:
        """Yield a client's listeners, but for a gateway's; ``requests``: see ``ScopeChoices``."""
        yield from self._memo.call(
            ("workload", client.workload.uid),
            messages.workload_listeners,
            self.entrance(client),
            client.scope.name,
            requests,
        )

    def entrance(self, client: Client) -> messages.Entrance:
        """Return what a client's listener for incoming connections depends on."""
        workload, options = client.workload, self._options
        return messages.Entrance(
            messages.placed(workload, short_way=options.short_way),
            identity_of(workload, options),
            client.served,
            client.policy,
            options,
            client.guard if asks_server_name(client.guard) else None,
        )

    def dns_listeners(self, client: Client) -> messages.Messages:
        """Return the listener for a client's queries."""
        workload = client.workload
        return self._memo.call(
            ("workload dns", workload.uid),
            messages.dns_listeners,
            messages.placed(workload),
            resolver_of(workload.namespace, self._snapshot.resolvers),
            self._options,
        )

    def fixed_clusters(self) -> messages.Messages:
        """Return the clusters that do not depend on services."""
        resolvers = self._snapshot.resolvers
        return self._memo.call(
            "fixed clusters", messages.fixed_clusters, self._served, resolvers, self._options
        )

    def inbound(self) -> messages.Messages:
        """Return the inbound listeners that workloads share."""
        return self._memo.call(
            "inbound", messages.shared_listeners, self._served, self._options, self.guards
        )

    def local(self) -> messages.Messages:
        """Return the listeners of the short way, where the options allow it."""
        if not self._options.short_way:
            return ()
        callers = self._snapshot.short_way.callers
        return self._memo.call(
            "local",
            messages.local_listeners,
            self._served,
            callers,
            self._options,
            self.guards,
        )

    def tunneling(self) -> messages.Messages:
        """Return the listener of tunnels to other nodes, where the options allow them."""
        if not self._options.hbone:
            return ()
        return self._memo.call("tunneling", messages.tunneling_listeners, self._options)

    def tunneled_clusters(self) -> messages.Messages:
        """Return the clusters to which tunnels to this node's workloads lead."""
        receivers = self._receivers()
        return self._memo.call("tunneled clusters", messages.receiving_clusters, receivers)

    def tunneled_routes(self) -> messages.Messages:
        """Return the route table of these tunnels, where the options allow them."""
        if not self._options.hbone:
            return ()
        return self._memo.call("tunneled routes", messages.receiving_tables, self._receivers())

    def _receivers(self) -> tuple[Receiver, ...]:
        """Return the workloads to which tunnels lead. Each is sent as many connections as its
        listener takes."""
        if not self._options.hbone:
            return ()
        found = (
            receiver(one.workload, one.served, shares.received(one.workload, self._options))
            for one in self._clients.values()
        )
        return tuple(one for one in found if one is not None)

    def inbound_routes(self) -> messages.Messages:
        """Return the route tables of inbound traffic."""
        accounts = self._snapshot.gateway_accounts
        return self._memo.call(
            "inbound routes",
            messages.inbound_tables,
            self._served,
            accounts,
            self._options,
            self.guards,
        )

    def limits(self, listeners: Iterable[str]) -> Message:
        """Return the limits of connections. ``listeners``: the names of all listeners."""
        names = tuple(listeners)
        counts = {
            uid: shares.connections(client.workload, self._options)
            for uid, client in self._clients.items()
        }
        return self._memo.call("limits", messages.limits, names, counts)
