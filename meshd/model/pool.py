"""The pools of proxies of a node, and the pool that a proxy says that it belongs to.

DNS has a pool of its own, because each listener of Envoy's UDP proxy keeps something for each
cluster of its process: memory would grow with workloads times services.
"""

from __future__ import annotations

import enum
from typing import Final

LIMITS: Final = "limits"
"""The layer of the proxies' runtime that says how many connections their listeners take."""


class Pool(enum.StrEnum):
    """A pool. The value begins the names of its members, and is what they tell the xDS server."""

    TRAFFIC = "proxy"
    DNS = "dns"


def pool_of(cluster: str) -> Pool | None:
    """Return the pool of a proxy's ``node.cluster``; None if it is not a proxy of ours."""
    return next((pool for pool in Pool if pool.value == cluster), None)


def lack(pool: Pool) -> str:
    """Describe the effect of having no connected member of the pool."""
    return "no proxy is connected" if pool is Pool.TRAFFIC else f"no {pool} proxy is connected"
