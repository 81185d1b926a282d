"""An endpoint of a Service that somebody else has chosen: Kubernetes, by its EndpointSlices."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from meshd.api.values import Hostname, Label, Locality, Name, NodeName, PortName, PortNumber
from meshd.model.workload import address_problem

SERVICE_NAME: Final = "kubernetes.io/service-name"
"""The label by which a slice names its Service, and by which a Service with slices selects."""


class ListedEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One address, with the ports of the Service that are served there. Raises ValueError for an
    address that nothing can have, which decoding reports."""

    namespace: Label
    service: Name
    address: str
    ports: Annotated[dict[PortName, PortNumber], msgspec.Meta(max_length=256)] = {}
    """By the names that they have in the Service."""
    ready: bool = True
    hostname: Hostname = ""
    node: NodeName = ""
    locality: Locality = ""

    def __post_init__(self) -> None:
        if problem := address_problem(self.address):
            raise ValueError(problem)
