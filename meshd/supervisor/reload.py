"""The roles that the settings choose, and what restarts after a change of settings. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import msgspec

from meshd.resolver.command import is_resolver
from meshd.settings import ProxySettings, Settings
from meshd.supervisor.privileges import Role


@dataclasses.dataclass(frozen=True, slots=True)
class Consequence:
    restart: frozenset[str] = frozenset()
    """Roles, which read their settings at their start."""
    replace: bool = False
    """Every proxy."""


def chosen(offered: Mapping[str, Sequence[str]], settings: Settings) -> Mapping[str, Sequence[str]]:
    """Return the roles that run under these settings: only a server has one for other nodes,
    and only a node of containers one for these."""
    left_out = {
        *(() if settings.role == Role.SERVER.value else (Role.SERVER.value,)),
        *(() if settings.kubernetes.enabled else (Role.KUBERNETES.value,)),
    }
    return {name: command for name, command in offered.items() if name not in left_out}


def consequence(before: Settings, after: Settings, roles: Collection[str]) -> Consequence:
    """Return what a change of settings requires; ``roles`` are all that exist."""
    if before == after:
        return Consequence()
    resolvers = frozenset(filter(is_resolver, roles))
    unconcerned = resolvers if before.mesh == after.mesh else frozenset[str]()
    return Consequence(frozenset(roles) - unconcerned, _fixed(before) != _fixed(after))


def _fixed(settings: Settings) -> tuple[ProxySettings, str, tuple[str, ...]]:
    """Return what a running proxy cannot change; the number of proxies is no part of it."""
    proxy = msgspec.structs.replace(settings.proxy, count=1)
    return proxy, settings.node, settings.mesh.dns_upstreams
