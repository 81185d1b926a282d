"""Parts of the plan under names that two configurations, and many clients, have in common."""

from __future__ import annotations

from typing import Literal

import msgspec

from meshd.compile.plan.origin import Origin


class Client(msgspec.Struct, frozen=True, order=True):
    """Those who are planned the same: workloads of a namespace, or one workload."""

    kind: Literal["mesh", "namespace", "workload", "gateway"]
    name: str = ""


class Part(msgspec.Struct, frozen=True):
    """A part of what clients are planned."""

    kind: str
    name: str
    value: object
    """A value of the plan. Names of route tables and upstreams in it may differ between clients."""
    origin: Origin | None = None
    """The field that asks for it; None: it is a default."""

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name


class HostRoutes(msgspec.Struct, frozen=True):
    """A host of a route table, but for its routes."""

    domains: tuple[str, ...]
    only_tls: bool
    order: tuple[str, ...]
    """The conditions of its routes."""


Parts = dict[tuple[str, str], Part]


class Planned(msgspec.Struct, frozen=True):
    """All that is planned under a configuration."""

    parts: dict[Client, Parts]
