"""A service without what only its load assignments depend on.

Endpoints come and go all the time; clusters and routes need little of them. Equal shapes give
equal clusters and routes, so that whoever remembers results may ask for the shape first.
"""

from __future__ import annotations

import msgspec

from meshd.model.service import Endpoint, Resolution, ServiceRecord


def shape(service: ServiceRecord) -> ServiceRecord:
    """The service with one endpoint, without an address, for each account that serves it.

    Where a cluster has its endpoints inside (DNS), they are all there.
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
