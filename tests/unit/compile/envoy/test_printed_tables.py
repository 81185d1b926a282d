"""Tables that are put together from parts have the bytes of the message in one piece."""

from __future__ import annotations

import pytest

from meshd.compile.envoy.printed_tables import PrintedTable, printed_host, with_domains
from meshd.compile.envoy.routes import route_table
from meshd.compile.plan.routes import DirectResponse, Route, RouteTable, VirtualHost


def host(name: str, *domains: str, status: int = 200) -> VirtualHost:
    route = Route(name="only", action=DirectResponse(status))
    return VirtualHost(name=name, domains=domains, routes=(route,))


ONE, TWO = host("one", "one.test", "1.test"), host("two", "two.test")


def printed(name: str, *hosts: VirtualHost) -> PrintedTable:
    return PrintedTable.of(name, map(printed_host, hosts))


@pytest.mark.parametrize("hosts", [(), (ONE,), (ONE, TWO), (TWO, ONE)])
def test_the_parts_are_the_message(hosts: tuple[VirtualHost, ...]) -> None:
    wanted = route_table(RouteTable("80@shop", hosts))
    table = printed("80@shop", *hosts)
    assert table.message() == wanted
    assert bytes(table) == wanted.SerializeToString(deterministic=True)


def test_versions_are_equal_exactly_when_the_bytes_are() -> None:
    tables = [
        printed("80@shop", ONE, TWO),
        printed("80@shop", TWO, ONE),
        printed("80@shop", ONE),
        printed("80@other", ONE, TWO),
        printed("80@shop", ONE, host("two", "two.test", status=404)),
    ]
    assert len({table.version for table in tables}) == len(tables)
    assert printed("80@shop", ONE, TWO).version == tables[0].version


def test_a_table_with_another_host_is_the_one_that_is_made_so() -> None:
    other = host("two", "two.test", status=404)
    wanted = printed("80@shop", ONE, other)
    found = printed("80@shop", ONE, TWO).replaced([printed_host(other), printed_host(host("3"))])
    assert (bytes(found), found.version) == (bytes(wanted), wanted.version)


def test_a_host_without_some_of_its_domains_is_otherwise_the_same() -> None:
    found = with_domains(printed_host(ONE), ("1.test",))
    wanted = printed_host(host("one", "1.test"))
    assert (found.body, found.domains, found.digest) == (wanted.body, ("1.test",), wanted.digest)
