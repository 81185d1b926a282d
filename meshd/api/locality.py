"""Localities: ``region/zone/subzone``, and the labels that name them.

After https://istio.io/latest/docs/tasks/traffic-management/locality-load-balancing/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REGION: Final = "topology.kubernetes.io/region"
ZONE: Final = "topology.kubernetes.io/zone"
SUBZONE: Final = "topology.istio.io/subzone"
NETWORK: Final = "topology.istio.io/network"
HOSTNAME: Final = "kubernetes.io/hostname"
_WHOLE: Final = ("topology.istio.io/locality", "istio-locality")
"""Labels that hold all three parts, with dots in place of slashes, which no label may have."""


def parts(locality: str) -> tuple[str, str, str]:
    """Return region, zone and subzone; empty where they are missing."""
    region, zone, subzone = (*locality.split("/", 2), "", "")[:3]
    return region, zone, subzone


def locality_of(labels: Mapping[str, str], otherwise: str) -> str:
    """Return the locality that labels name, or else ``otherwise``."""
    for key in _WHOLE:
        if text := labels.get(key):
            return text.replace(".", "/", 2)
    if region := labels.get(REGION):
        return "/".join((region, labels.get(ZONE, ""), labels.get(SUBZONE, ""))).rstrip("/")
    return otherwise


def shared(one: str, other: str) -> int:
    """Return how many parts two localities share, from the region on: 0 to 3."""
    for number, (here, there) in enumerate(zip(parts(one), parts(other), strict=True)):
        if here != there:
            return number
    return 3


def matches(locality: str, pattern: str) -> bool:
    """Return whether a locality matches ``*``, ``region/*``, ``region/zone/*``; missing parts match
    anything."""
    return all(
        wanted in {"", "*", found}
        for wanted, found in zip(parts(pattern), parts(locality), strict=True)
    )
