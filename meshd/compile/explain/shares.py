"""Tells which share of requests or connections each of several upstreams gets. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def shares(upstreams: Iterable[tuple[str, int]]) -> dict[str, float]:
    """Return the percentages, by name, of upstreams with weights; one alone needs no weight."""
    listed = list(upstreams)
    if len(listed) == 1:
        return {listed[0][0]: 100.0}
    whole = sum(weight for _, weight in listed) or 1
    found: dict[str, float] = {}
    for name, weight in listed:
        found[name] = found.get(name, 0.0) + 100 * weight / whole
    return found
