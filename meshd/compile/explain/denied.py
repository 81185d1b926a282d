"""Says which open connections a change of the rules denies. Pure.

Proxies judge new connections, and each request; a connection that is open, and not HTTP, is judged
here. Who the client is, is told by its address, since nothing else of it is seen from outside the
proxy. So a connection is denied only if rules that have changed allowed it: where they did not, the
client is another one than its address says.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from meshd.compile.explain.authorization import Facts, judge
from meshd.compile.plan.authorization import Authorization
from meshd.compile.policy.authorization import asks_server_name, of_connections, of_whatever
from meshd.compile.policy.served import Ports, Spoken
from meshd.model.open_connection import OpenConnection
from meshd.model.workload import Identity, Workload

Rules = Authorization | None


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A change of the rules about a workload."""

    workload: Workload
    ports: Ports
    before: tuple[Rules, ...]
    """All that were in force since its connections were judged."""
    now: Rules


def peers(workloads: Iterable[Workload], trust_domain: str) -> Mapping[str, str]:
    """Return the SPIFFE URIs of workloads by their addresses; of an address that several have, an
    empty one."""
    every = [(address, one) for one in workloads for address in _addresses(one)]
    counts = Counter(address for address, _ in every)
    return {
        address: Identity(trust_domain, one.namespace, one.service_account).uri
        if counts[address] == 1
        else ""
        for address, one in every
    }


def _addresses(workload: Workload) -> frozenset[str]:
    """Return a workload's addresses as the kernel writes them."""
    return frozenset(str(ipaddress.ip_address(one)) for one in workload.addresses)


def denied(
    change: Change, connections: Iterable[OpenConnection], known: Mapping[str, str]
) -> Iterator[OpenConnection]:
    """Yield those of a workload's connections that were allowed, and are denied now; ``known``: see
    ``peers``.

    Whose name in the TLS hello counts, whose address several have, or who is the workload itself,
    keeps its connections.
    """
    if any(map(asks_server_name, (change.now, *change.before))):
        return
    own = _addresses(change.workload)
    for one in connections:
        if one.server in own and one.client not in own and known.get(one.client) != "":
            peer = known.get(one.client, "")
            facts = Facts(peer=peer, client=one.client, server=one.server, port=one.port)
            if _is_denied(change, facts):
                yield one


def _is_denied(change: Change, facts: Facts) -> bool:
    spoken = change.ports.get(facts.port, Spoken.OPAQUE)
    if spoken not in {Spoken.OPAQUE, Spoken.SNIFFED}:
        return False
    of_kind = of_connections if spoken is Spoken.OPAQUE else of_whatever

    def allows(rules: Rules) -> bool:
        return judge(rules and of_kind(rules), facts).allowed

    return not allows(change.now) and any(map(allows, change.before))
