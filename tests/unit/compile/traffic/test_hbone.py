"""Where tunnels to this node's workloads lead: what they ask for against what they may have."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)

from meshd.compile.envoy.hbone import hbone_routes, tunnel_manager
from meshd.compile.explain.chain_choice import Connection, choose
from meshd.compile.plan.chains import Tunneled
from meshd.compile.policy.peer_authentication import Mode, PeerPolicy
from meshd.compile.policy.served import Spoken
from meshd.compile.traffic.hbone import (
    CHAIN,
    receiver,
    receiving_chain,
    receiving_routes,
    receiving_upstreams,
)
from meshd.compile.traffic.inbound import workload_listener
from meshd.model.connection_rate import ANNOTATION
from meshd.model.interception import HBONE_PORT, UNTUNNELED_PORTS
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import HostService, Identity, Workload

_PORTS = {80: Spoken.HTTP, 90: Spoken.OPAQUE, 70: Spoken.SNIFFED}


def workload(uid: str, *addresses: str) -> Workload:
    return Workload(uid=uid, name=uid, namespace="n", netns=f"/pins/{uid}", addresses=addresses)


def leads(authority: str, uid: str, *of: Workload) -> str:
    """The cluster to which the first route leads that takes a request; empty: it is refused."""
    found = [one for each in of if (one := receiver(each, _PORTS, 5))]
    table = hbone_routes(receiving_routes(found))
    assert table.virtual_hosts
    for host in table.virtual_hosts:
        (domain,) = host.domains
        assert domain.endswith(":*")
        if not authority.startswith(domain[:-1]):
            continue
        for route in host.routes:
            assert route.match.HasField("connect_matcher")
            (header,) = route.match.headers
            owners = [one.string_match.exact for one in route.match.filter_state]
            fits = re.fullmatch(header.string_match.safe_regex.regex, authority)
            if fits and (not owners or owners == [uid]):
                return route.route.cluster
    return ""


def test_a_tunnel_leads_to_the_workload_that_takes_it() -> None:
    one, two = workload("one", "198.18.0.1", "fd00:198::1"), workload("two", "198.18.0.2")
    assert leads("198.18.0.1:90", "one", one, two) == "hbone@one"
    assert leads("198.18.0.1:70", "one", one, two) == "hbone-inspected@one"
    assert leads("[fd00:198::1]:80", "one", one, two) == "hbone@one"
    assert leads("198.18.0.2:65535", "two", one, two) == "hbone@two"
    assert not leads("198.18.0.2:90", "one", one, two)
    assert not leads("198.18.0.3:90", "one", one, two)


def test_workloads_of_two_networks_may_have_one_address() -> None:
    both = workload("one", "198.18.0.1"), workload("two", "198.18.0.1")
    assert leads("198.18.0.1:90", "one", *both) == "hbone@one"
    assert leads("198.18.0.1:90", "two", *both) == "hbone@two"


def _wrong() -> Iterator[str]:
    yield from (f"198.18.0.1:{port}" for port in sorted(UNTUNNELED_PORTS))
    yield from (f"198.18.0.1:{text}" for text in ("", "0", "090", "65536", "100000", "+90", "90 "))
    yield from ("198x18x0x1:90", "198.18.0.1:90:90", "198.18.0.11:90", "[198.18.0.1]:90", "")


@pytest.mark.parametrize("authority", list(_wrong()))
def test_all_else_is_refused(authority: str) -> None:
    assert not leads(authority, "one", workload("one", "198.18.0.1"))


def test_every_port_that_is_nobody_elses_can_be_asked_for() -> None:
    one = workload("one", "198.18.0.1")
    for port in (1, 9, 10, 99, 999, 9999, 10000, 59999, 60000, 64999, 65000, 65499, 65535, 15672):
        assert leads(f"198.18.0.1:{port}", "one", one) == "hbone@one", port


def test_connections_out_of_tunnels_are_limited() -> None:
    made = receiver(workload("one", "198.18.0.1"), _PORTS, 5)
    assert made
    for upstream in receiving_upstreams([made]):
        assert upstream.settings.limits
        assert upstream.settings.limits.connections == 5


@pytest.mark.parametrize(
    ("setting", "asked", "expected"),
    [(200, None, 400), (200, "7", 14), (200, "many", 400), (0, None, 0), (200, "0", 0)],
)
def test_new_connections_in_tunnels_are_limited_as_those_that_the_kernel_sees(
    setting: int, asked: str | None, expected: int
) -> None:
    annotations = {} if asked is None else {ANNOTATION: asked}
    one = msgspec.structs.replace(workload("one", "198.18.0.1"), annotations=annotations)
    options = MeshOptions(hbone=True, connections_per_second=setting)
    target = receiving_chain(one, Identity("cluster.local", "n", "a"), options).target
    assert isinstance(target, Tunneled)
    assert target.rate == expected
    manager = http_connection_manager_pb2.HttpConnectionManager()
    assert tunnel_manager(target).typed_config.Unpack(manager)
    names = [one.name for one in manager.http_filters]
    assert (names[0] == "envoy.filters.http.local_ratelimit") is bool(expected)
    assert all("local_ratelimit" not in name for name in names[1:])


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("on", [True, False])
def test_the_port_of_tunnels_takes_mutual_tls_only_under_every_mode(mode: Mode, on: bool) -> None:
    options, identity = MeshOptions(hbone=on), Identity("cluster.local", "n", "a")
    for policy in (PeerPolicy(mode, {}), PeerPolicy(Mode.STRICT, {HBONE_PORT: mode})):
        listener = workload_listener(workload("one"), identity, _PORTS, policy, options)
        for asked in (
            Connection(port=HBONE_PORT, begins_as="tls", offers_mesh_tls=True),
            Connection(port=HBONE_PORT, begins_as="tls", offers_mesh_tls=False),
            Connection(port=HBONE_PORT, begins_as="other", offers_mesh_tls=False),
        ):
            to = choose(listener.choice, asked)
            assert (to is not None and to.chain == CHAIN) is on
        chain = listener.chain(CHAIN)
        assert (chain is not None) is on
        if chain:
            assert isinstance(chain.target, Tunneled)
            assert chain.tls
            assert chain.notes_peer


def test_a_service_of_the_host_takes_no_tunnels() -> None:
    host = HostService(cgroup="x", outbound_port=15101, inbound_port=15102)
    one = Workload(uid="one", name="one", namespace="n", netns="", host=host)
    policy, identity = PeerPolicy(Mode.STRICT, {}), Identity("cluster.local", "n", "a")
    made = workload_listener(one, identity, _PORTS, policy, MeshOptions(hbone=True))
    assert made.chain(CHAIN) is None
    assert receiver(one, _PORTS, 5) is None
