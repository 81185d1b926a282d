"""Weights whose sum Envoy accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_LARGEST_SUM: Final = 2**32 - 1
"""Of the weights of the clusters of a route, or of the endpoints of a locality: with a larger one,
Envoy refuses all routes of the port, or all endpoints of the cluster."""


def summable(weights: Sequence[int]) -> Sequence[int]:
    """Return the weights, or others in the same proportion, as near as may be, whose sum is not too
    large; what has a weight keeps one."""
    total = sum(weights)
    if total <= _LARGEST_SUM:
        return weights
    most = _LARGEST_SUM - len(weights)
    return [max(1, weight * most // total) if weight else 0 for weight in weights]
