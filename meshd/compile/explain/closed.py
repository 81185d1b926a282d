"""Tells why requests and connections are refused: what they are about is not in force."""

from __future__ import annotations

from meshd.compile.names import parse_cluster
from meshd.model.closed_routes import is_closed
from meshd.model.service import ServiceRecord


def of_service(service: ServiceRecord) -> str:
    """Return the object that declares a service."""
    kind, name = ("ServiceEntry", service.entry) if service.entry else ("Service", service.name)
    return f"{kind} {service.namespace}/{name}"


def why_closed(cluster: str, service: ServiceRecord | None = None) -> str:
    """Return why a cluster does not exist; empty if that is not because something is closed.

    ``service``: the closed service that the cluster is of, if it is of one.
    """
    if service is not None:
        what = of_service(service)
    elif is_closed(getattr(parse_cluster(cluster), "host", "")):
        what = "the VirtualService of the route"
    else:
        return ""
    return f"closed, because {what} is not in force; meshctl status says why"
