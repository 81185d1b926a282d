"""What dnsmasq is told of the mesh's services."""

from __future__ import annotations

from typing import Any

import pytest

from meshd.model.service import Endpoint, ServiceRecord
from meshd.resolver.tables import Tables, marked, tables


def service(host: str, *addresses: str, **more: Any) -> ServiceRecord:
    return ServiceRecord(host=host, namespace="shop", addresses=addresses, **more)


def told(*services: ServiceRecord) -> Tables:
    return tables(services, "mesh.test", WILD)


WILD = "127.0.0.2#53"


def endpoint(address: str, *, ready: bool = True) -> Endpoint:
    return Endpoint(address=address, port=80, service_port=80, ready=ready)


def test_a_service_is_known_by_three_names_and_each_of_its_addresses() -> None:
    found = told(service("web.shop.svc.mesh.test", "10.0.0.1", "fd00::1"))
    names = "web.shop.svc.mesh.test web.shop.svc web.shop"
    assert found.hosts == f"10.0.0.1 {names}\nfd00::1 {names}\n"


def test_a_short_name_is_not_asked_outside_but_names_below_it_are() -> None:
    found = told(service("web.shop.svc.mesh.test", "10.0.0.1"))
    assert found.servers == "server=/web.shop/\nserver=/*.web.shop/#\n"


def test_a_headless_service_is_its_ready_endpoints() -> None:
    ends = (endpoint("10.1.0.2"), endpoint("10.1.0.1"), endpoint("10.1.0.3", ready=False))
    found = told(service("db.shop.svc.mesh.test", headless=True, endpoints=(*ends, ends[0])))
    assert [line.split()[0] for line in found.hosts.splitlines()] == ["10.1.0.1", "10.1.0.2"]


def test_each_endpoint_of_a_headless_service_has_its_own_name_below_it() -> None:
    ends = [
        Endpoint(address=f"10.1.0.{number}", port=port, service_port=port, name=f"db-{number}")
        for number in (0, 1)
        for port in (80, 81)
    ]
    found = told(service("db.shop.svc.mesh.test", headless=True, endpoints=tuple(ends)))
    names = "db.shop.svc.mesh.test db.shop.svc db.shop"
    own = "db-1.db.shop.svc.mesh.test db-1.db.shop.svc db-1.db.shop"
    assert found.hosts.splitlines()[1:] == [f"10.1.0.1 {names} {own}"]
    assert found.servers.splitlines()[-2:] == [
        "server=/db-1.db.shop/",
        "server=/*.db-1.db.shop/#",
    ]
    virtual = told(service("db.shop.svc.mesh.test", "10.0.0.1", endpoints=tuple(ends)))
    assert "db-" not in virtual.hosts


def test_a_host_of_the_world_has_no_other_name() -> None:
    found = told(service("api.example.com", "10.0.0.1"))
    assert found.hosts == "10.0.0.1 api.example.com\n"
    assert found.servers == "server=/api.example.com/\nserver=/*.api.example.com/#\n"


def test_names_without_an_address_are_left_to_other_resolvers() -> None:
    found = told(
        service("api.example.com"),
        service("net.example.com", "10.0.0.0/8"),
        service("web.shop.svc.mesh.test", headless=True),
        service("*", "10.0.0.1"),
    )
    assert found == Tables("", "", "")


def test_a_wildcard_is_an_option_of_another_one() -> None:
    found = told(service("*.example.com", "10.0.0.1", "fd00::1"))
    assert found == Tables(
        "",
        f"server=/*.example.com/{WILD}\n",
        "address=/*.example.com/10.0.0.1\naddress=/*.example.com/fd00::1\nlocal=/*.example.com/\n",
    )


def test_the_order_of_the_services_does_not_matter() -> None:
    services = [service(f"{name}.shop.svc.mesh.test", "10.0.0.1") for name in "abc"]
    assert told(*services) == told(*reversed(services))


def test_only_a_resolver_that_has_read_these_very_tables_knows_their_mark() -> None:
    plain = told(service("web.shop.svc.mesh.test", "10.0.0.1"))
    (mark,), found = marked(plain, "mesh.test", WILD)
    assert found == plain._replace(hosts=f"127.0.0.1 {mark}\n{plain.hosts}")
    assert mark.endswith(".mesh.test")
    others = [
        plain._replace(hosts=""),
        plain._replace(servers=""),
        plain._replace(wildcards="local=/*.x/\n"),
    ]
    assert len({mark, *(marked(other, "mesh.test", WILD)[0][0] for other in others)}) == 4


def test_wildcards_have_a_mark_of_their_own_that_changes_with_nothing_else() -> None:
    wild = service("*.example.com", "10.0.0.1")
    first, found = marked(told(wild), "mesh.test", WILD)
    assert found.wildcards.endswith(f"\naddress=/{first[1]}/127.0.0.1\n")
    assert found.servers.endswith(f"\nserver=/{first[1]}/{WILD}\n")
    second, more = marked(told(wild, service("api.example.com", "10.0.0.2")), "mesh.test", WILD)
    assert second[0] != first[0]
    assert (second[1], more.wildcards) == (first[1], found.wildcards)
    third, _ = marked(told(service("*.example.com", "10.0.0.2")), "mesh.test", WILD)
    assert third[1] != first[1]


@pytest.mark.parametrize("overlaid", [False, True])
def test_names_of_the_mesh_are_not_asked_outside_with_a_domain_behind_them(overlaid: bool) -> None:
    services = (
        service("web.shop.svc.mesh.test", "10.0.0.1"),
        service("api.example.com", "10.0.0.2"),
        service("*.wild.example.com", "10.0.0.3"),
    )
    found = tables(services, "mesh.test", WILD, ("corp.test",), overlaid=overlaid)
    denied = [line for line in found.servers.splitlines() if line.endswith(".corp.test/")]
    as_a_whole = [] if overlaid else ["server=/mesh.test.corp.test/"]
    assert denied == [
        *as_a_whole,
        "server=/shop.svc.corp.test/",
        "server=/*.wild.example.com.corp.test/",
        "server=/api.example.com.corp.test/",
    ]
