"""The endpoints of Kubernetes' EndpointSlices. Pure.

https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from meshd.api.base import Ignoring
from meshd.kubernetes.objects import Followed
from meshd.model.listed import SERVICE_NAME, ListedEndpoint

_HOSTNAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)


class Conditions(Ignoring, frozen=True):
    ready: bool | None = None
    """None: unknown, which counts as ready."""


class Endpoint(Ignoring, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    hostname: str | None = None
    node_name: str | None = None


class Port(Ignoring, frozen=True):
    port: int | None = None
    name: str | None = None
    protocol: str | None = None


class EndpointSlice(Followed, frozen=True):
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[Port, ...] | None = None

    @property
    def service(self) -> str:
        """Return the name of its Service; empty: it has none."""
        return self.metadata.labels.get(SERVICE_NAME, "")


def listed(found: EndpointSlice) -> tuple[ListedEndpoint, ...]:
    """Return the endpoints of a slice; those that nothing can be sent to, or that no Service can
    have, are left out: others are told with them."""
    return tuple(_listed(found)) if found.service else ()


def _listed(found: EndpointSlice) -> Iterator[ListedEndpoint]:
    ports = {
        port.name or "": port.port
        for port in found.ports or ()
        if port.port and 0 < port.port < 65536 and port.protocol in {None, "TCP"}
    }
    for one in found.endpoints or ():
        fields = {
            "namespace": found.metadata.namespace,
            "service": found.service,
            "address": next(iter(one.addresses), ""),  # the others have no meaning
            "ports": ports,
            "ready": one.conditions.ready is not False,
            "hostname": _hostname(one.hostname or ""),
            "node": one.node_name or "",
        }
        if found.address_type != "FQDN":
            with contextlib.suppress(msgspec.ValidationError):
                yield msgspec.convert(fields, ListedEndpoint)


def _hostname(text: str) -> str:
    return text if _HOSTNAME.fullmatch(text) else ""
