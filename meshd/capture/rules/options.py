"""Tells which traffic of a workload is captured: settings, annotations → ``CaptureOptions``. Pure.

The annotations are those of Istio, with the same syntax:
https://istio.io/latest/docs/reference/config/annotations/ (``traffic.sidecar.istio.io/…``).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from meshd.base.errors import InvalidInputError
from meshd.base.numbers import whole
from meshd.model import connection_rate
from meshd.model.interception import DNS_SERVICE_PORT
from meshd.model.workload import Placement, shown
from meshd.settings import CaptureSettings

ANNOTATION_PREFIX: Final = "traffic.sidecar.istio.io/"

QUERIES_ANNOTATION: Final = "meshd.io/dns-queries-per-second"
CONNECTIONS_ANNOTATION: Final = connection_rate.ANNOTATION
HIGHEST_RATE: Final = connection_rate.HIGHEST

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")

_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,14}")  # IFNAMSIZ less the NUL


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOptions:
    """The options of one workload, sorted, without duplicates: equal options give equal rules."""

    dns: bool = True
    dns_rate: int = 0
    """Queries a second; 0: any number."""
    connection_rate: int = 0
    """New connections a second that the workload opens; 0: any number."""
    drops_logged: bool = True
    """Whether the kernel has a log (NFLOG) that counts the connections above the rate."""
    ipv6: bool = True
    fail_open: bool = False
    """Whether traffic passes, rather than being dropped, while rules change."""
    backend: str = "auto"
    include_outbound: tuple[Network, ...] | None = None
    """The ranges that are captured; None means all."""
    exclude_outbound: tuple[Network, ...] = ()
    include_outbound_ports: tuple[int, ...] = ()
    """Ports that are captured at any address."""
    exclude_outbound_ports: tuple[int, ...] = ()
    include_inbound_ports: tuple[int, ...] | None = None
    """The ports that are captured; None means all."""
    exclude_inbound_ports: tuple[int, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()


class _WrongItemError(ValueError):
    """Gives the reason why one item of a value is rejected."""


def options_for(
    placement: Placement, settings: CaptureSettings, *, fail_open: bool = False
) -> CaptureOptions:
    """Return the options of a workload.

    Raises InvalidInputError naming the workload, the annotation and the value.
    """
    read = _Annotations(placement)
    dns_ports = (*read.ports("excludeOutboundPorts"), *settings.exclude_outbound_ports)
    return CaptureOptions(
        dns=settings.dns and DNS_SERVICE_PORT not in dns_ports,
        dns_rate=countable(read.rate(QUERIES_ANNOTATION, settings.dns_queries_per_second)),
        connection_rate=countable(
            read.rate(CONNECTIONS_ANNOTATION, settings.connections_per_second)
        ),
        ipv6=settings.ipv6,
        fail_open=fail_open,
        backend=settings.backend,
        include_outbound=read.networks_or_all("includeOutboundIPRanges"),
        exclude_outbound=_unique_networks(
            (*read.networks("excludeOutboundIPRanges"), *_setting_networks(settings))
        ),
        include_outbound_ports=_unique(read.ports("includeOutboundPorts")),
        exclude_outbound_ports=_unique(dns_ports),
        include_inbound_ports=read.ports_or_all("includeInboundPorts"),
        exclude_inbound_ports=_unique(
            (
                *read.ports("excludeInboundPorts"),
                *settings.exclude_inbound_ports,
                *placement.bypass_inbound_ports,
            )
        ),
        exclude_interfaces=_unique(read.interfaces("excludeInterfaces")),
    )


def countable(rate: int) -> int:
    """Return the highest rate up to ``rate`` that the kernel shows as given; 0: any number."""
    periods = ((number, HIGHEST_RATE // number) for number in range(min(rate, HIGHEST_RATE), 0, -1))
    exact = (
        number
        for number, period in periods
        if HIGHEST_RATE // period == number >= HIGHEST_RATE % period
    )
    return next(exact, 0)


def received_rate(rate: int) -> int:
    """Return how many new connections a second a workload may receive, as the kernel shows it."""
    return countable(connection_rate.received(rate))


def parse_network(text: str) -> Network:
    """Read a CIDR range or an address. Raises ValueError.

    An IPv4-mapped IPv6 address means the IPv4 address, since its packets are IPv4.
    """
    network = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


class _Annotations:
    """The capture annotations of one workload."""

    def __init__(self, placement: Placement) -> None:
        self._uid = placement.workload.uid
        self._values = placement.workload.annotations

    def rate(self, name: str, usual: int) -> int:
        """Return the rate a second by the annotation with this full name, or else ``usual``.

        Raises InvalidInputError if the value is no such number.
        """
        text = self._values.get(name, str(usual))
        rate = whole(text, HIGHEST_RATE)
        if rate is None:
            raise InvalidInputError(
                f"workload {shown(self._uid)}: annotation {name}: {text[:64]!r} is not a number a"
                f" second (0 to {HIGHEST_RATE}; 0: without a limit)"
            )
        return rate

    def networks(self, name: str) -> tuple[Network, ...]:
        return self._items(name, _network)

    def ports(self, name: str) -> tuple[int, ...]:
        return self._items(name, _port)

    def interfaces(self, name: str) -> tuple[str, ...]:
        return self._items(name, _interface)

    def networks_or_all(self, name: str) -> tuple[Network, ...] | None:
        return None if self._is_all(name) else _unique_networks(self.networks(name))

    def ports_or_all(self, name: str) -> tuple[int, ...] | None:
        return None if self._is_all(name) else _unique(self.ports(name))

    def _is_all(self, name: str) -> bool:
        return self._values.get(ANNOTATION_PREFIX + name, "*").strip() == "*"

    def _items(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        value = self._values.get(ANNOTATION_PREFIX + name, "")
        try:
            return tuple(parse(item.strip()) for item in value.split(",") if item.strip())
        except _WrongItemError as wrong:
            raise InvalidInputError(
                f"workload {shown(self._uid)}: annotation {ANNOTATION_PREFIX}{name}:"
                f' "{value}": {wrong}'
            ) from None


def _network(text: str) -> Network:
    try:
        return parse_network(text)
    except ValueError:
        raise _WrongItemError(f"{text!r} is not an address range such as 10.0.0.0/8") from None


def _port(text: str) -> int:
    port = whole(text, 65535)
    if not port:
        raise _WrongItemError(f"{text!r} is not a port (1 to 65535)")
    return port


def _interface(text: str) -> str:
    if not _INTERFACE.fullmatch(text):
        raise _WrongItemError(f"{text!r} is not the name of an interface")
    return text


def _setting_networks(settings: CaptureSettings) -> tuple[Network, ...]:
    try:
        return tuple(_network(text) for text in settings.exclude_outbound_cidrs)
    except _WrongItemError as wrong:
        raise InvalidInputError(f"setting capture.exclude_outbound_cidrs: {wrong}") from None


def _unique(items: Iterable[T]) -> tuple[T, ...]:
    return tuple(sorted(set(items)))  # pyright: ignore[reportArgumentType]


def _unique_networks(items: Iterable[Network]) -> tuple[Network, ...]:
    return tuple(
        sorted(set(items), key=lambda n: (n.version, n.network_address.packed, n.prefixlen))
    )
