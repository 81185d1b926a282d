"""Names of clusters, route configurations and server names (SNI), and their parser.

They are Istio's, on which dashboards and habits depend:
https://istio.io/latest/docs/ops/diagnostic-tools/proxy-cmd/.
"""

from __future__ import annotations

from typing import Final

import msgspec

from meshd.base.numbers import whole

BLACK_HOLE_CLUSTER: Final = "BlackHoleCluster"
MIRROR: Final = "mirror"
ASKING: Final = "asking"
"""Where questions to extension providers go."""
"""Name of the internal listener for copies of requests, and of the cluster that leads there."""
LOCAL: Final = "local"
"""Name of the internal listener for connections between workloads of this node."""
LOCAL_INSPECTED: Final = "local-inspected"
"""Name of the one behind it that reads first bytes, and of the cluster that leads there."""
HBONE: Final = "hbone"
"""Name of the internal listener for connections to other nodes that share tunnels, of the cluster
of these tunnels, and of the route table of those that arrive."""
PASSTHROUGH_CLUSTER: Final = "PassthroughCluster"

KUBERNETES: Final = "kubernetes://"
"""How proxies' names of Kubernetes Secrets begin."""

HIDDEN: Final = "hidden"
"""Variant of no cluster at all: the service exists, but not for this client."""


class OutboundCluster(msgspec.Struct, frozen=True):
    """One service port, as clients see it.

    ``variant`` is empty for the view that clients share; clients for which other DestinationRules
    hold have clusters of their own, ``outbound|PORT|SUBSET|HOST@VARIANT``. ``apart`` is the
    namespace of a service whose host means another service elsewhere: ``HOST@NAMESPACE:VARIANT``.
    """

    port: int
    host: str
    subset: str = ""
    variant: str = ""
    apart: str = ""

    def __str__(self) -> str:
        apart = f"{self.apart}:" if self.apart else ""
        variant = f"@{apart}{self.variant}" if apart or self.variant else ""
        return f"outbound|{self.port}|{self.subset}|{self.host}{variant}"

    @property
    def sni(self) -> str:
        """Return the server name that a client of the mesh asks for."""
        return f"outbound_.{self.port}_.{self.subset}_.{self.host}"

    @property
    def endpoints(self) -> str:
        """Name of its endpoints (EDS). They differ by variant only where a rule names a subset."""
        return str(self if self.subset else msgspec.structs.replace(self, variant=""))

    @property
    def near_endpoints(self) -> str:
        """Return the EDS name of endpoints ordered by distance, for the clients of one variant."""
        return f"{self};near"

    def assigned(
        self, *, near: bool, inside: bool, tunneled: bool = False, requests: str = ""
    ) -> str:
        """Return the EDS name of endpoints; ``inside``: those of this node may be reached by the
        short way, ``requests``: with such requests; ``tunneled``: those of others by tunnels."""
        name = self.near_endpoints if near else self.endpoints
        local = f";{LOCAL}{requests and ';'}{requests}" if inside else ""
        return name + local + (f";{HBONE}" if tunneled else "")


class InboundCluster(msgspec.Struct, frozen=True):
    """The application's own port, behind the server's side of the proxy.

    ``variant`` is the version of HTTP, if it is not HTTP/1.1.
    """

    port: int
    variant: str = ""

    def __str__(self) -> str:
        return f"inbound|{self.port}||" + (f"@{self.variant}" if self.variant else "")


def hbone_cluster(uid: str, *, inspecting: bool) -> str:
    """Return the name of the cluster that tunnels to a workload lead to."""
    return f"{HBONE}{'-inspected' if inspecting else ''}@{uid}"


def parse_cluster(name: str) -> OutboundCluster | InboundCluster | None:
    """Parse a name; None if it is not a service's, such as BlackHoleCluster."""
    parts = name.split("|")
    port = whole(parts[1], 65535) if len(parts) == 4 else None
    if port is None:
        return None
    direction, _, subset, host = parts
    host, _, variant = host.partition("@")
    if direction == "inbound":
        return InboundCluster(port, variant)
    if direction != "outbound":
        return None
    apart, colon, rest = variant.partition(":")
    return OutboundCluster(port, host, subset, *((rest, apart) if colon else (variant,)))


def client_routes(port: int, scope: str) -> str:
    """Route configuration of a client's side: all HTTP hosts on one port, as one scope sees it."""
    return f"{port}@{scope}"


def gateway_routes(port: int, owner: str, tls_server: str = "") -> str:
    """Route configuration of a port of a gateway, which is the workload ``owner``.

    Servers in plaintext share their port's. One that terminates TLS has its own; ``tls_server``
    tells it from others on that port.
    """
    return f"https.{port}.{tls_server}@{owner}" if tls_server else f"http.{port}@{owner}"


def certificate_secret(name: str) -> str:
    """Return the proxies' name of the certificate in the Secret ``NAMESPACE/NAME``."""
    # The authority of another one is called so.
    return f"{KUBERNETES}{name}{'#certificate' if name.endswith('-cacert') else ''}"


def authority_secret(name: str) -> str:
    """Return the proxies' name of the authority in the Secret ``NAMESPACE/NAME``."""
    return f"{KUBERNETES}{name}-cacert"


def missing_secret(name: str) -> str:
    """Return a name that no secret has, in place of a secret that cannot be served."""
    return f"{name}#missing"


_GATEWAY: Final = "gateway|"


def listener_name(uid: str, what: str) -> str:
    """Return the name of a workload's listener, such as ``shop.web|outbound``."""
    return f"{uid}|{what}"


def gateway_listener_name(uid: str, port: int) -> str:
    """Return the name of the listener for a port of a gateway's workload."""
    return listener_name(uid, f"{_GATEWAY}{port}")


def is_of_gateway(listener: str) -> bool:
    """Return whether a listener is for a port of a gateway."""
    return listener.partition("|")[2].startswith(_GATEWAY)


def workload_of(name: str) -> str:
    """Return the uid in a listener's name; empty if the listener belongs to no single workload."""
    uid, bar, _ = name.partition("|")
    return uid if bar else ""


def scope_listener_name(scope: str, *, inspecting: bool = False) -> str:
    """Return the name of an internal listener, and of the cluster that leads there."""
    return f"outbound{'-inspected' if inspecting else ''}@{scope}"
