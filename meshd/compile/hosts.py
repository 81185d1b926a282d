"""Host names: short and long forms, wildcards, and the overlap of two patterns."""

from __future__ import annotations

from collections.abc import Container


def resolve(host: str, namespace: str, domain: str, known: Container[str]) -> str:
    """Return the full name for what an object of ``namespace`` calls ``host``.

    A name without a dot is a service of the object's own namespace, as in Istio. Of two labels it
    may be ``NAME.NAMESPACE`` or a name outside the mesh: the former if there is such a service.
    """
    host = host.lower()
    labels = host.split(".")
    if host == "*" or labels[0] == "*" or host in known:
        return host
    if len(labels) == 1:
        return f"{host}.{namespace}.svc.{domain}"
    if len(labels) == 3 and labels[2] == "svc":
        return f"{host}.{domain}"
    full = f"{host}.svc.{domain}"
    return full if len(labels) == 2 and full in known else host


def forms(host: str, client_namespace: str, domain: str) -> tuple[str, ...]:
    """Return all names by which a client calls the host: ``reviews`` only in its own namespace."""
    service = host.removesuffix(f".svc.{domain}")
    labels = service.split(".")
    if service == host or len(labels) != 2 or labels[0] == "*":
        return (host,)
    name, namespace = labels
    short = (name,) if namespace == client_namespace else ()
    return (host, *short, service, f"{service}.svc")


def covers(pattern: str, host: str) -> bool:
    """Return whether ``pattern`` (``*``, ``*.example.com`` or a name) covers all of ``host``."""
    if pattern == "*":
        return True
    if pattern.startswith("*"):
        return host.endswith(pattern[1:]) and host != pattern[1:]
    return pattern == host


def common(one: str, other: str) -> str | None:
    """Return the narrower of two patterns if the other covers it."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def specificity(pattern: str) -> tuple[bool, int]:
    """Return a sort key by which the pattern that is most specific about a host comes first."""
    return (pattern.startswith("*"), -len(pattern))
