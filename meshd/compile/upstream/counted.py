"""What a cluster counts over all its clients: connections, pending requests, failures in a row.

In Istio each client's proxy counts for itself. Here clients share clusters; so where a rule has
anything counted, clients of other namespaces have clusters of their own, and so has each workload
that asks for it. Otherwise one client could use up a limit, or have endpoints ejected, and close
the service to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from meshd.api.networking import (
    ConnectionPoolSettings,
    DestinationRuleSpec,
    PortTrafficPolicy,
    TrafficPolicy,
)

ANNOTATION: Final = "meshd.io/own-limits"
"""Of a workload: "true" gives it clusters of its own."""


def counts_for_itself(annotations: Mapping[str, str]) -> bool:
    return annotations.get(ANNOTATION) == "true"


def is_counted(spec: DestinationRuleSpec | None) -> bool:
    """Return whether one client can affect another one's requests."""
    return spec is not None and any(_counts(policy) for policy in _policies(spec))


def _policies(spec: DestinationRuleSpec) -> Iterator[TrafficPolicy | PortTrafficPolicy]:
    for policy in (spec.traffic_policy, *(subset.traffic_policy for subset in spec.subsets)):
        if policy:
            yield policy
            yield from policy.port_level_settings


def _counts(policy: TrafficPolicy | PortTrafficPolicy) -> bool:
    budget = isinstance(policy, TrafficPolicy) and policy.retry_budget is not None
    return budget or policy.outlier_detection is not None or _has_limit(policy.connection_pool)


def _has_limit(pool: ConnectionPoolSettings | None) -> bool:
    tcp, http = (pool.tcp, pool.http) if pool else (None, None)
    limits = (
        tcp and tcp.max_connections,
        http and http.http1_max_pending_requests,
        http and http.http2_max_requests,
        http and http.max_retries,
    )
    return any(limits)
