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


def distinct(name: str, *hosts: VirtualHost) -> PrintedTable:
    return PrintedTable.of(name, map(printed_host, hosts), is_distinct=True)


THREE = host("three", "three.test")


@pytest.mark.parametrize(
    ("order", "made", "wanted"),
    [
        (("one", "three", "two"), {"three": THREE}, (ONE, THREE, TWO)),
        (("two",), {"one": None}, (TWO,)),
        (("one", "two"), {"two": host("two", "2.test")}, (ONE, host("two", "2.test"))),
        (("two", "one"), {"one": ONE}, (TWO, ONE)),
        (("one", "two"), {"four": None}, (ONE, TWO)),
    ],
)
def test_an_edited_table_is_the_one_that_is_made_of_its_hosts(
    order: tuple[str, ...], made: dict[str, VirtualHost | None], wanted: tuple[VirtualHost, ...]
) -> None:
    parts = {name: one and printed_host(one) for name, one in made.items()}
    found = distinct("80@shop", ONE, TWO).edited(order, parts)
    assert found is not None
    assert found.is_distinct
    whole = printed("80@shop", *wanted)
    assert (bytes(found), found.version) == (bytes(whole), whole.version)


def test_no_table_is_edited_whose_hosts_may_have_a_domain_in_common() -> None:
    three = printed_host(THREE)
    order = ("one", "two", "three")
    table = distinct("80@shop", ONE, TWO)
    assert table.edited(order, {"three": printed_host(host("three", "3.test", "2.test"))})
    assert table.edited(order, {"three": printed_host(host("three", "1.test"))}) is None
    assert table.edited(("one", "two"), {"three": three}) is None  # it has no place
    assert printed("80@shop", ONE, TWO).edited(order, {"three": three}) is None
    assert table.replaced([three]).is_distinct
