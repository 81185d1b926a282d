"""Frozen ``Settings`` from etc/meshd.yaml.

Every key has a default, so that an empty file is enough. An unknown key or a wrong value is an
error that names the file, the line and the key.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final, Literal

import msgspec

from meshd.api.values import Locality, NodeName
from meshd.api.yaml import decode, read_documents
from meshd.base.errors import InvalidInputError
from meshd.model.capacity import Capacity
from meshd.model.snapshot import MeshOptions
from meshd.settings.sections import (
    CaptureSettings,
    ControlSettings,
    IdentitySettings,
    IssuerSettings,
    KubernetesSettings,
    LogSettings,
    MeshSettings,
    ProxySettings,
    TelemetrySettings,
)

_IPV6: Final = Path("/proc/net/if_inet6")


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
    issuers: IssuerSettings = IssuerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    control: ControlSettings = ControlSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()

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
            direct_requests=self.proxy.direct_requests,
            short_way=self.proxy.short_way,
            hbone=self.proxy.hbone,
            providers=tuple(one.provider for one in self.mesh.extension_providers),
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
