"""Upstreams inside the node: applications, resolvers, and the proxy's own listeners."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshd.compile.names import InboundCluster
from meshd.compile.plan.upstreams import (
    Fixed,
    Http,
    HttpVersion,
    InternalListener,
    OriginalDestination,
    Settings,
    Upstream,
    UpstreamName,
)
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.upstream.settings import limits
from meshd.compile.upstream.traffic_policy import Policy
from meshd.model.interception import PROXY_INBOUND_MARK
from meshd.model.snapshot import MeshOptions

UNDECLARED: Final = "InboundPassthroughCluster"
"""Ports of an application that no service declares."""
DNS_CLUSTER: Final = "dns"
_LOOPBACK: Final = "127.0.0.1"
_APPLICATION_TIMEOUT: Final = 10.0
"""Seconds in which an application has to accept a connection."""
_VARIANTS: Final = {
    Spoken.HTTP: "",
    Spoken.OPAQUE: "",
    Spoken.HTTP2: "http2",
    Spoken.EITHER: "either",
    Spoken.SNIFFED: "either",
}
_HTTP: Final = {
    "": None,
    "http2": Http(HttpVersion.HTTP2),
    "either": Http(HttpVersion.APPLICATIONS),
}


def internal(listener: str) -> Upstream:
    """Return the upstream that leads to a listener inside the proxy and has its name."""
    return Upstream(listener, InternalListener(listener))


def inbound_name(port: int, spoken: Spoken) -> InboundCluster:
    return InboundCluster(port, _VARIANTS[spoken])


def inbound_upstreams(served: Iterable[Ports], options: MeshOptions) -> Iterator[Upstream]:
    """Yield one for each port number and version of HTTP, whoever serves it, and one for ports that
    no service declares."""
    pairs = {(port, spoken) for ports in served for port, spoken in ports.items()}
    names = {inbound_name(port, spoken) for port, spoken in pairs}
    names |= {InboundCluster(port) for port, spoken in pairs if spoken is Spoken.SNIFFED}
    for name in sorted(names, key=str):
        yield _application(name, _HTTP[name.variant], options)
    yield _application(UNDECLARED, None, options)


def _application(name: UpstreamName, http: Http | None, options: MeshOptions) -> Upstream:
    """Return the upstream to where the client wanted to go, from inside the namespace."""
    return Upstream(
        name,
        OriginalDestination(),
        Settings(
            connect_timeout=_APPLICATION_TIMEOUT,
            limits=limits(Policy(), options),
            http=http,
            mark=PROXY_INBOUND_MARK,
        ),
    )


def resolver_of(namespace: str, resolvers: Mapping[str, str]) -> str:
    """Return the upstream of a namespace's resolver: its own, or the node's."""
    return f"{DNS_CLUSTER}@{namespace}" if namespace in resolvers else DNS_CLUSTER


def resolver_upstreams(
    options: MeshOptions, resolvers: Mapping[str, str], *, udp: bool
) -> Iterator[Upstream]:
    settings = Settings(limits=limits(Policy(), options))
    addresses = {DNS_CLUSTER: _LOOPBACK} | {
        resolver_of(namespace, resolvers): resolvers[namespace] for namespace in sorted(resolvers)
    }
    for name, address in addresses.items():
        yield Upstream(name, Fixed(address, options.dns_port, udp), settings)
