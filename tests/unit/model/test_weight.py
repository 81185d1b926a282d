"""How much objects make together."""

from __future__ import annotations

from meshd.api.gateway.types import GatewayPort, Server
from meshd.model.weight import gateway_entrances


def server(*hosts: str) -> Server:
    return Server(GatewayPort(number=443, name="https", protocol="HTTPS"), hosts)


def test_a_host_counts_at_the_servers_that_have_it() -> None:
    shared = [server(f"shop-{number}.example.com") for number in range(30)]
    shared.append(server("other/*.example.net"))
    assert gateway_entrances(shared, ["shop-1.example.com", "shop-2.example.com"]) == 2
    assert gateway_entrances(shared, ["*.example.com"]) == 30
    assert gateway_entrances(shared, ["a.example.net", "b.example.org"]) == 1


def test_hosts_that_are_too_many_to_compare_count_at_each_server() -> None:
    many = [server(*(f"shop-{number}.example.com" for number in range(1000)))] * 2
    hosts = [f"b-{number}.example.com" for number in range(100)]
    assert gateway_entrances(many, hosts) == 200
