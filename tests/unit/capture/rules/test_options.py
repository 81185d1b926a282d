from __future__ import annotations

import pytest

from meshd.base.errors import InvalidInputError
from meshd.capture.rules.options import (
    CONNECTIONS_ANNOTATION,
    QUERIES_ANNOTATION,
    CaptureOptions,
    countable,
    options_for,
    parse_network,
)
from meshd.model.workload import Placement, Stage, Workload
from meshd.settings import CaptureSettings

PREFIX = "traffic.sidecar.istio.io/"
DEFAULTS = CaptureSettings()


def read(
    annotations: dict[str, str] | None = None,
    settings: CaptureSettings = DEFAULTS,
    bypass: tuple[int, ...] = (),
    prefix: str = PREFIX,
) -> CaptureOptions:
    workload = Workload(
        uid="default.reviews",
        name="reviews",
        namespace="default",
        netns="/run/netns/x",
        annotations={prefix + name: value for name, value in (annotations or {}).items()},
    )
    return options_for(Placement(workload, Stage.CAPTURED, bypass), settings)


def test_without_annotations_everything_is_captured() -> None:
    assert read() == CaptureOptions(dns_rate=500, connection_rate=200)


@pytest.mark.parametrize("value", ["*", " * "])
def test_an_include_of_a_star_includes_everything(value: str) -> None:
    options = read({"includeOutboundIPRanges": value, "includeInboundPorts": value})
    assert options.include_outbound is None
    assert options.include_inbound_ports is None


def test_an_empty_include_is_nothing() -> None:
    options = read({"includeOutboundIPRanges": "", "includeInboundPorts": ""})
    assert options.include_outbound == ()
    assert options.include_inbound_ports == ()


def test_lists_are_sorted_and_each_item_is_once() -> None:
    options = read(
        {
            "excludeOutboundIPRanges": "10.1.0.0/16, 10.0.0.7,10.1.0.0/16,fd00::/8",
            "excludeOutboundPorts": "5432,22, 5432",
            "excludeInterfaces": "eth1,docker0",
        }
    )
    assert options.exclude_outbound == tuple(
        map(parse_network, ("10.0.0.7/32", "10.1.0.0/16", "fd00::/8"))
    )
    assert options.exclude_outbound_ports == (22, 5432)
    assert options.exclude_interfaces == ("docker0", "eth1")


def test_the_nodes_settings_and_the_proxys_own_ports_are_excluded_too() -> None:
    settings = CaptureSettings(
        exclude_outbound_cidrs=("192.0.2.0/24",),
        exclude_outbound_ports=(22,),
        exclude_inbound_ports=(9100,),
        ipv6=False,
        backend="legacy",
    )
    options = read({"excludeOutboundPorts": "23"}, settings, bypass=(8443,))
    assert options == CaptureOptions(
        exclude_outbound=(parse_network("192.0.2.0/24"),),
        exclude_outbound_ports=(22, 23),
        exclude_inbound_ports=(8443, 9100),
        ipv6=False,
        backend="legacy",
        dns_rate=500,
        connection_rate=200,
    )


def test_queries_are_limited_by_the_setting_and_by_the_workloads_annotation() -> None:
    few = CaptureSettings(dns_queries_per_second=100)
    assert read(settings=few).dns_rate == 100
    assert read({QUERIES_ANNOTATION: "0"}, settings=few, prefix="").dns_rate == 0
    for wrong in ("", "-1", "1.5", "many", "10001", "٣"):
        with pytest.raises(InvalidInputError, match=r"default/reviews.*not a number a second"):
            read({QUERIES_ANNOTATION: wrong}, prefix="")


def test_new_connections_are_limited_by_the_setting_and_by_the_workloads_annotation() -> None:
    few = CaptureSettings(connections_per_second=20)
    assert read(settings=few).connection_rate == 20
    assert read({CONNECTIONS_ANNOTATION: "250"}, settings=few, prefix="").connection_rate == 250
    with pytest.raises(InvalidInputError, match=r"default/reviews.*not a number a second"):
        read({CONNECTIONS_ANNOTATION: "many"}, prefix="")


@pytest.mark.parametrize("rate", [1, 7, 70, 99, 300, 500, 3000, 9999, 10_000])
def test_a_rate_is_one_that_the_kernel_counts_to_exactly(rate: int) -> None:
    exact = countable(rate)
    assert rate / 2 < exact <= rate
    period = 10_000 // exact
    assert 10_000 // period == exact >= 10_000 % period  # iptables' print_rate
    assert countable(0) == 0


def test_excluding_the_port_of_dns_ends_dns_capture() -> None:
    assert not read({"excludeOutboundPorts": "53"}).dns
    assert not read(settings=CaptureSettings(dns=False)).dns


def test_ipv4_addresses_in_ipv6_clothes_are_ipv4_addresses() -> None:
    assert parse_network("::ffff:10.1.2.0/120") == parse_network("10.1.2.0/24")


@pytest.mark.parametrize(
    ("name", "value", "item"),
    [
        ("includeOutboundIPRanges", "10.0.0.0/33", "'10.0.0.0/33' is not an address range"),
        ("excludeOutboundIPRanges", "10.0.0.0/8,*", "'*' is not an address range"),
        ("includeInboundPorts", "80,http", "'http' is not a port"),
        ("excludeInboundPorts", "0", "'0' is not a port"),
        ("includeOutboundPorts", "65536", "'65536' is not a port"),
        ("excludeOutboundPorts", "-1", "'-1' is not a port"),
        ("excludeOutboundPorts", "٣", "'٣' is not a port"),
        ("excludeOutboundPorts", "9" * 9000, "is not a port"),
        ("excludeInterfaces", "eth0 -j ACCEPT", "'eth0 -j ACCEPT' is not the name"),
        ("excludeInterfaces", "!lo", "'!lo' is not the name"),
        ("excludeInterfaces", "eth+", "'eth+' is not the name"),
        ("excludeInterfaces", "a-name-that-is-long", "'a-name-that-is-long' is not the name"),
    ],
)
def test_a_wrong_value_is_named_with_its_workload_and_annotation(
    name: str, value: str, item: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read({name: value})
    message = str(caught.value)
    assert message.startswith(f'workload default/reviews: annotation {PREFIX}{name}: "{value}": ')
    assert item in message


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"setting capture\.exclude_outbound_cidrs: 'x'"):
        read(settings=CaptureSettings(exclude_outbound_cidrs=("x",)))


@pytest.mark.parametrize("value", ["-1", "10001", "9" * 9000, "٣", ""])
def test_a_wrong_number_of_queries_is_named(value: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a number a second"):
        read({QUERIES_ANNOTATION: value}, prefix="")
