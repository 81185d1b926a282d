"""Which chain of a plan a connection gets."""

from __future__ import annotations

import pytest

from meshd.compile.explain.chain_choice import Connection, choose
from meshd.compile.plan.choices import (
    ByAddress,
    ByBeginning,
    ByHttp,
    ByNetwork,
    ByPort,
    ByRequests,
    ByServerName,
    ByTls,
    ByWorkload,
    To,
    Way,
)

NAMES = ByServerName({"x.test": To("exact")}, ((".a.test", To("long")), (".test", To("short"))))
TREE = ByPort(
    {
        80: ByAddress(
            {"198.19.0.1": ByTls(NAMES, ByHttp(To("http"), To("rest")))},
            ByNetwork({"198.19.0.0/16": To("large"), "198.19.1.0/24": ByTls(To("small"), None)}),
        ),
        81: ByWorkload({"a": To("of a")}),
        82: To("dns"),
        83: ByRequests("http1", To("straight"), To("read")),
    },
    ByBeginning(("198.19.",), To("refused")),
)


def led(way: Way, connection: Connection) -> str:
    to = choose(way, connection)
    return to.chain if to else ""


def at(address: str, begins_as: str = "other", name: str = "", port: int = 80) -> str:
    return led(
        TREE,
        Connection(address=address, port=port, begins_as=begins_as, server_name=name),  # pyright: ignore[reportArgumentType]
    )


@pytest.mark.parametrize(
    ("name", "chain"),
    [("x.test", "exact"), ("y.a.test", "long"), ("y.b.test", "short"), ("y.other", "large")],
)
def test_the_most_specific_server_name_wins_and_any_other_goes_on(name: str, chain: str) -> None:
    assert at("198.19.0.1", "tls", name) == chain


def test_requests_are_told_apart_by_their_version() -> None:
    assert led(TREE, Connection(port=83, requests="http1")) == "straight"
    assert led(TREE, Connection(port=83, requests="http2")) == "read"
    assert led(TREE, Connection(port=83)) == "read"


def test_plaintext_is_told_apart_by_its_first_line() -> None:
    assert at("198.19.0.1", "http") == "http"
    assert at("198.19.0.1", "http/1.0") == "rest"
    assert at("198.19.0.1") == "rest"


def test_the_smallest_network_that_leads_anywhere_counts() -> None:
    assert at("198.19.1.7", "tls") == "small"
    assert at("198.19.1.7") == "large"


def test_connections_that_no_answer_fits_go_on() -> None:
    assert at("198.18.0.1") == ""
    assert at("198.19.0.1", port=90) == "refused"
    assert at("198.19.0.1", port=82) == "dns"
    assert at("not an address", port=80) == ""


def test_a_port_may_be_another_at_another_workload() -> None:
    assert led(TREE, Connection(port=81, workload="a")) == "of a"
    assert led(TREE, Connection(port=81, workload="b")) == ""
