"""While a configuration changes, each connection goes where the former or the later one leads it.

A proxy takes up listeners one after the other: each pair of a former and a later one may serve
connections for a moment.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from meshd.compile.explain.chain_choice import Connection, follow
from meshd.compile.plan.listeners import Listener
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.traffic.entries import Entry
from meshd.compile.traffic.inbound import shared_listeners
from meshd.compile.traffic.local import local_listeners
from meshd.compile.traffic.scope_listeners import scope_choices, scope_listeners
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.view import View
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions
from tests.envoy.chains import meshes

CHANGES = 150
CONNECTIONS = 60
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Pair(NamedTuple):
    """A listener, and the one behind it, to which it leaves some connections."""

    front: Listener
    behind: Listener
    left: frozenset[str]


def end(front: Listener, behind: Iterable[Listener], connection: Connection) -> str:
    """Return the name of the chain in which a connection ends, as the proxy would lead it."""
    *_, last = follow(front, behind, connection)
    return last.chain.name


def of_scope(mesh: meshes.Mesh) -> Pair:
    view, options = View.of(MeshIndex.of(mesh.snapshot), mesh.scope), mesh.snapshot.options
    choices = scope_choices(view, options)
    return Pair(*scope_listeners("n", choices, "dns", options), choices.left)


def differing(before: meshes.Mesh, after: meshes.Mesh) -> Iterator[ServiceRecord]:
    """Yield the services that one of two meshes has, and the other has not."""
    for these, those in ((before, after), (after, before)):
        known = those.snapshot.services
        yield from (one for host, one in these.snapshot.services.items() if known.get(host) != one)


def networks_of(services: Iterable[ServiceRecord]) -> list[Network]:
    """Return where the connections to some services go, as far as it is told by an address."""
    texts = {
        text
        for one in services
        for text in (*one.addresses, *(place.address for place in one.endpoints))
    }
    return [ipaddress.ip_network(text) for text in texts]


def test_a_connection_goes_on_arriving_that_two_configurations_lead_to_one_service() -> None:
    """Whatever others become at other addresses, or at none."""
    arrived = 0
    for number in range(CHANGES):
        chance = random.Random(number)  # noqa: S311
        before = meshes.mesh(chance, "n")
        after = meshes.changed(chance, before, "n")
        old, new = of_scope(before), of_scope(after)
        others = [*differing(before, after)]
        networks = networks_of(others)
        for _ in range(CONNECTIONS):
            connection = meshes.connection(chance)
            wanted = {end(one.front, [one.behind], connection) for one in (old, new)}
            address = ipaddress.ip_address(connection.address)
            if len(wanted) > 1 or any(address in network for network in networks):
                continue
            if any(one.host in name for one in others for name in wanted):
                continue
            if wanted & {"rest", "refused"}:
                continue
            arrived += 1
            for front, behind in itertools.product(
                (old.front, new.front), (old.behind, new.behind)
            ):
                found = end(front, [behind], connection)
                assert {found} == wanted, (number, connection)
    assert arrived > CHANGES


def test_the_order_of_publication_lets_connections_arrive_to_services_that_change() -> None:
    """As far as two configurations agree on them; see ``xds.following``."""
    judged = 0
    for number in range(CHANGES):
        chance = random.Random(number)  # noqa: S311
        before = meshes.mesh(chance, "n")
        old, new = of_scope(before), of_scope(meshes.changed(chance, before, "n"))
        if old.left - new.left and new.left - old.left:
            continue
        front, behind = (new, old) if new.left < old.left else (old, new)
        for _ in range(CONNECTIONS):
            connection = meshes.connection(chance)
            wanted = {end(one.front, [one.behind], connection) for one in (old, new)}
            if len(wanted) == 1 and not wanted & {"rest", "refused"}:
                judged += 1
                found = end(front.front, [behind.behind], connection)
                assert {found} == wanted, (number, connection)
    assert judged > CHANGES


_UIDS = ("a", "b")
_SERVED = st.fixed_dictionaries(
    {
        uid: st.dictionaries(st.sampled_from([80, 81]), st.sampled_from(list(Spoken)))
        for uid in _UIDS
    }
)
_BEGINNINGS = st.sampled_from(["http", "tls", "other"])


@given(_SERVED, _SERVED, st.sampled_from(_UIDS), st.sampled_from([80, 81]), _BEGINNINGS)
def test_a_connection_to_a_workload_ends_where_one_of_two_configurations_leads_it(
    before: Mapping[str, Ports],
    after: Mapping[str, Ports],
    uid: str,
    port: int,
    begins_as: Literal["http", "tls", "other"],
) -> None:
    connection = Connection(port=port, workload=uid, begins_as=begins_as)
    both = before, after
    inspects = [served[uid].get(port) is Spoken.SNIFFED for served in both]
    for mutual_tls in (False, True):
        names = [Entry(mutual_tls, inspected=one).listener for one in (False, True)]
        made = [{one.name: one for one in shared_listeners(each, MeshOptions())} for each in both]
        allowed = {
            end(listeners[names[inspected]], listeners.values(), connection)
            for listeners, inspected in zip(made, inspects, strict=True)
        }
        for inspected, *mixed in itertools.product(inspects, made, made):
            listeners = [one[name] for one, name in zip(mixed, names, strict=True)]
            assert end(listeners[inspected], listeners, connection) in allowed
    inside = [local_listeners(each, ("c",), MeshOptions(short_way=True)) for each in both]
    allowed = {end(front, [behind], connection) for front, behind in inside}
    for (front, _), (_, behind) in itertools.product(inside, inside):
        assert end(front, [behind], connection) in allowed
