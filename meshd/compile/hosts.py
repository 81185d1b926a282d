"""Host names: the short forms of a long one, and which pattern is more specific."""

from __future__ import annotations


def forms(host: str, client_namespace: str, domain: str) -> tuple[str, ...]:
    """Return all names by which a client calls the host: ``reviews`` only in its own namespace."""
    service = host.removesuffix(f".svc.{domain}")
    labels = service.split(".")
    if service == host or len(labels) != 2 or labels[0] == "*":
        return (host,)
    name, namespace = labels
    short = (name,) if namespace == client_namespace else ()
    return (host, *short, service, f"{service}.svc")


def specificity(pattern: str) -> tuple[bool, int]:
    """Return a sort key by which the pattern that is most specific about a host comes first."""
    return (pattern.startswith("*"), -len(pattern))
