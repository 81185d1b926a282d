"""A service without the parts on which only its load assignments depend.

Endpoints come and go all the time; clusters and routes need little of them. Equal shapes give equal
clusters and routes, so that a memory may compare shapes first.
"""

from __future__ import annotations

import msgspec

from meshd.model.service import Endpoint, Resolution, ServiceRecord


def shape(service: ServiceRecord) -> ServiceRecord:
    """Return the service with one endpoint, without an address, for each account that serves it.

    Where a cluster contains its endpoints (DNS), all are kept.
    """
    if service.resolution in {Resolution.DNS, Resolution.DNS_ROUND_ROBIN}:
        return service
    places = tuple(
        Endpoint(
            address="",
            port=0,
            service_port=0,
            namespace=namespace,
            service_account=account,
            mutual_tls=mutual_tls,
        )
        for namespace, account, mutual_tls in sorted(service.accounts)
    )
    return msgspec.structs.replace(service, endpoints=places)


def outline(service: ServiceRecord) -> ServiceRecord:
    """Return the service without endpoints, which is all that routes of HTTP depend on."""
    return msgspec.structs.replace(service, endpoints=())
