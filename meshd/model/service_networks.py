"""The networks of virtual addresses, as the setting ``mesh.service_cidr`` names them. Pure.

One network, or one of each family with a comma between them, as Kubernetes' API server takes them
(``--service-cluster-ip-range``).
"""

from __future__ import annotations

import functools
import ipaddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@functools.lru_cache(maxsize=64)
def service_networks(text: str) -> tuple[Network, ...]:
    """Return the networks in the order of the text; none for an empty text.

    Raises ValueError if a part of the text is no network, or two have the same family.
    """
    networks = tuple(ipaddress.ip_network(one.strip()) for one in text.split(",") if text)
    if len({network.version for network in networks}) < len(networks):
        raise ValueError(f"{text!r} has two networks of one family")
    return networks
