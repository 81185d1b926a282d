"""The paths of meshd's files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path


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
    def cni(self) -> Path:
        """Return the socket at which the CNI plugin hands over what container runtimes ask."""
        return self.own("kubernetes") / "cni.sock"

    @property
    def locate(self) -> Path:
        """Return the socket over which the kubernetes role asks for the namespaces of pods."""
        return self.run / "locate" / "locate.sock"

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
