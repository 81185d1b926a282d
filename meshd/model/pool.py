"""Which pools of proxies a node has, and which of them a proxy says that it belongs to.

DNS has a pool of its own, because each listener of Envoy's UDP proxy keeps something for each
cluster of its process: memory would grow with workloads times services.
"""

from __future__ import annotations

import enum
from typing import Final

LIMITS: Final = "limits"
"""The layer of the proxies' runtime that says how many connections their listeners take."""


class Pool(enum.StrEnum):
    """The value begins the names of its members, and is what they say to the xDS server."""

    TRAFFIC = "proxy"
    DNS = "dns"


def pool_of(cluster: str) -> Pool | None:
    """``cluster`` is a proxy's ``node.cluster``. None: it is no proxy of ours."""
    return next((pool for pool in Pool if pool.value == cluster), None)


def lack(pool: Pool) -> str:
    """What is so while no member of it is connected."""
    return "no proxy is connected" if pool is Pool.TRAFFIC else f"no {pool} proxy is connected"
