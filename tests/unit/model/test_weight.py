"""How much objects make together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import pytest

from meshd.api.base import Object, ObjectMeta
from meshd.api.destination_rule.types import DestinationRule, DestinationRuleSpec, Subset
from meshd.api.gateway.types import GatewayPort, Server
from meshd.api.hosts import HostIndex
from meshd.api.virtual_service.types import VirtualService
from meshd.model.excess import MOST_ROUTED, MOST_SUBSETS, MOST_SUBSETS_OF_MANY
from meshd.model.weight import Weighed, gateway_entrances, weigh


@dataclasses.dataclass
class Around:
    """A mesh whose services have so many ports in all."""

    count: int

    def full(self, host: str, owner: Object, /) -> str:
        del owner
        return host

    def services(self, host: str, /) -> Iterable[Weighed]:
        return [Weighed("shop", host, tuple(range(self.count)))]

    def servers(self, namespace: str, name: str, /) -> Sequence[Server]:
        del namespace, name
        return ()

    def delegate(self, namespace: str, name: str, /) -> VirtualService | None:
        del namespace, name


def rule(host: str, subsets: int) -> DestinationRule:
    spec = DestinationRuleSpec(
        host=host, subsets=tuple(Subset(name=f"v{number}") for number in range(subsets))
    )
    return DestinationRule(metadata=ObjectMeta(name="all", namespace="shop"), spec=spec)


def server(*hosts: str) -> Server:
    return Server(GatewayPort(number=443, name="https", protocol="HTTPS"), hosts)


def entrances(servers: Sequence[Server], *hosts: str) -> int:
    return gateway_entrances(servers, HostIndex(hosts))


def test_a_host_counts_at_the_servers_that_have_it() -> None:
    shared = [server(f"shop-{number}.example.com") for number in range(30)]
    shared.append(server("other/*.example.net"))
    assert entrances(shared, "shop-1.example.com", "shop-2.example.com") == 2
    assert entrances(shared, "*.example.com") == 30
    assert entrances(shared, "a.example.net", "b.example.org") == 1


def test_each_host_of_a_server_counts_for_a_wildcard_that_covers_it() -> None:
    names = [f"shop-{number}.example.com" for number in range(1000)]
    assert entrances([server(*names)], "*.example.com") == 1000
    assert entrances([server("*.example.com")], *names) == 1000
    assert entrances([server(*names)], *names) == 1000


def test_hosts_of_a_large_gateway_count_at_the_servers_that_have_them() -> None:
    names = [f"shop-{number}.example.com" for number in range(1000)]
    assert entrances([server(name) for name in names], *names) == 1000


def test_hosts_are_not_counted_far_above_what_is_taken() -> None:
    names = [f"shop-{number}.example.com" for number in range(1000)]
    assert MOST_ROUTED < entrances([server("*")] * 1000, *names) <= MOST_ROUTED + len(names)


@pytest.mark.parametrize(
    ("host", "subsets", "ports", "heavy"),
    [
        ("web.shop.svc.cluster.local", MOST_SUBSETS, 1, False),
        ("web.shop.svc.cluster.local", 2, MOST_SUBSETS, True),
        ("*.local", MOST_SUBSETS_OF_MANY, 100_000, False),
        ("*.local", MOST_SUBSETS_OF_MANY + 1, 100, False),
        ("*.local", MOST_SUBSETS_OF_MANY + 1, MOST_SUBSETS, True),
    ],
)
def test_a_rule_may_have_few_subsets_in_a_mesh_of_any_size(
    host: str, subsets: int, ports: int, *, heavy: bool
) -> None:
    assert bool(weigh(rule(host, subsets), Around(ports)).why) is heavy
