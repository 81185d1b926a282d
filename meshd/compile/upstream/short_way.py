"""Decides for which upstreams the short way means the same as mutual TLS over the network."""

from __future__ import annotations

from meshd.api.protocol import Protocol
from meshd.compile.upstream.traffic_policy import Policy
from meshd.model.short_way import Requests


def obstacle(policy: Policy) -> str:
    """Return why an upstream's connections all go over the network; empty: those to endpoints of
    this node need not."""
    tls = policy.tls
    if tls is not None and tls.mode != "ISTIO_MUTUAL":
        return f"a DestinationRule asks for tls.mode {tls.mode}"
    if tls is not None and tls.subject_alt_names:
        return "a DestinationRule asks for certain names in certificates"
    if policy.proxy_protocol:
        return "a DestinationRule asks for the PROXY protocol"
    return ""


def requests(protocol: Protocol, policy: Policy, *, at_gateway: bool) -> Requests:
    """Return what an upstream sends by the short way. ``protocol``: see ``upstream_protocol``.

    A gateway, and whoever sends copies, says itself for whom requests are.
    """
    http = policy.connection_pool and policy.connection_pool.http
    if at_gateway or not protocol.is_http or (http and http.use_client_protocol):
        return ""
    return "http1" if protocol is Protocol.HTTP else "http2"
