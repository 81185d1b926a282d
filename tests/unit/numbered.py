"""Workloads that a number tells apart, for tests of many changes."""

from __future__ import annotations

from meshd.model.workload import NamedPort, Workload


def workload(number: int, namespace: str, **labels: str) -> Workload:
    """Return a workload of this node with a named port."""
    return Workload(
        uid=f"{namespace}.w{number}",
        name=f"w{number}",
        namespace=namespace,
        netns=f"/run/netns/w{number}",
        labels=labels,
        addresses=(f"198.18.9.{number}",),
        ports=(NamedPort("admin", 8081),),
    )
