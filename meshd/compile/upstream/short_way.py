"""Decides for which upstreams the short way means the same as mutual TLS over the network."""

from __future__ import annotations

from meshd.compile.upstream.traffic_policy import Policy


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
