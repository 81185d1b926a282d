"""Which ports a gateway's workload opens, and for which servers of which Gateways."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterator

from meshd.compile.gateway_tls import credentials
from meshd.compile.names import gateway_routes
from meshd.model.gateways import Gateway, Server
from meshd.model.snapshot import Snapshot
from meshd.model.workload import Workload

_CLEAR_TEXT = {"HTTP", "HTTP2", "GRPC", "GRPC-WEB"}
_ENCRYPTED = {"HTTPS", "TLS"}


@dataclasses.dataclass(frozen=True, slots=True)
class BoundServer:
    """A server of a Gateway, on a workload that the Gateway selects."""

    gateway: Gateway
    server: Server
    index: int = 0
    """Of the server in its Gateway."""

    @property
    def name(self) -> str:
        """Unique among all servers."""
        return f"{self.gateway_name}/{self.index}"

    @property
    def gateway_name(self) -> str:
        return f"{self.gateway.metadata.namespace}/{self.gateway.metadata.name}"

    @property
    def hosts(self) -> Iterator[tuple[str, str]]:
        """Hosts, each with the namespace whose VirtualServices may use it (``*``: any)."""
        for text in self.server.hosts:
            owner, separator, host = text.rpartition("/")
            if not separator:
                yield "*", host.lower()
            else:
                yield (self.gateway.metadata.namespace if owner == "." else owner), host.lower()

    @property
    def server_names(self) -> tuple[str, ...]:
        """Host names without the namespaces that may bind to them."""
        return tuple(dict.fromkeys(host for _, host in self.hosts))

    @property
    def redirects(self) -> bool:
        """Requests in clear text are sent to the same URL with https."""
        return self.server.tls is not None and self.server.tls.https_redirect

    @property
    def is_tls(self) -> bool:
        """Clients speak TLS, whether it ends here or not."""
        encrypted = self.server.port.protocol.upper() in _ENCRYPTED
        return not self.is_clear_text and (encrypted or self.server.tls is not None)

    @property
    def terminates_tls(self) -> bool:
        tls = self.server.tls
        return (
            tls is not None
            and tls.mode not in {"PASSTHROUGH", "AUTO_PASSTHROUGH"}
            and (not self.is_clear_text)
        )

    @property
    def is_clear_text(self) -> bool:
        """Plain HTTP; its ``tls`` can do no more than redirect to HTTPS."""
        return self.server.port.protocol.upper() in _CLEAR_TEXT

    @property
    def is_http(self) -> bool:
        return self.is_clear_text or self.server.port.protocol.upper() == "HTTPS"


@dataclasses.dataclass(frozen=True, slots=True)
class GatewayPorts:
    """What one gateway workload serves."""

    group: str
    """Names the selection: workloads of one namespace with equal Gateways share their routes."""
    ports: dict[int, tuple[BoundServer, ...]]
    """By the port that the workload listens on."""

    def route_configurations(self) -> Iterator[tuple[str, int, tuple[BoundServer, ...]]]:
        """Name, port and servers of each: clear text shares one, and TLS has one a server."""
        for port, servers in self.ports.items():
            clear = tuple(server for server in servers if server.is_clear_text)
            if clear:
                yield gateway_routes(port, self.group), clear[0].server.port.number, clear
                continue
            for server in servers:
                if server.terminates_tls and server.is_http:
                    name = gateway_routes(port, self.group, server.name)
                    yield name, server.server.port.number, (server,)

    def credentials(self) -> frozenset[str]:
        """Secrets that the servers need, as ``NAMESPACE/NAME``."""
        return frozenset(
            name
            for servers in self.ports.values()
            for server in servers
            if server.server.tls
            for name in credentials(server.server.tls, server.gateway.metadata.namespace)
        )


def gateway_ports(snapshot: Snapshot, workload: Workload) -> GatewayPorts:
    """Without ports, the workload is no gateway."""
    chosen = [
        gateway
        for gateway in snapshot.gateways
        if gateway.spec.selector and gateway.spec.selector.items() <= workload.labels.items()
    ]
    if not chosen:
        return GatewayPorts("", {})
    listening = _target_ports(snapshot, workload)
    ports: dict[int, list[BoundServer]] = defaultdict(list)
    for gateway in chosen:
        for index, server in enumerate(gateway.spec.servers):
            number = server.port.number
            ports[listening.get(number, number)].append(BoundServer(gateway, server, index))
    text = " ".join(str(gateway.key) for gateway in chosen)
    group = f"{workload.namespace}/{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return GatewayPorts(group, {port: tuple(servers) for port, servers in sorted(ports.items())})


def _target_ports(snapshot: Snapshot, workload: Workload) -> dict[int, int]:
    """Port of a Service in front of the workload → the workload's own port behind it."""
    return {
        endpoint.service_port: endpoint.port
        for service in snapshot.services.values()
        for endpoint in service.endpoints
        if endpoint.workload == workload.uid
    }
