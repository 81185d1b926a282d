"""Which roles the settings choose, and what is to begin anew when they have changed. Pure."""

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
    """The roles that run under these settings: only a server has one for other nodes."""
    left_out = "" if settings.role == Role.SERVER.value else Role.SERVER.value
    return {name: command for name, command in offered.items() if name != left_out}


def consequence(before: Settings, after: Settings, roles: Collection[str]) -> Consequence:
    """``roles``: all that there are."""
    if before == after:
        return Consequence()
    resolvers = frozenset(filter(is_resolver, roles))
    unconcerned = resolvers if before.mesh == after.mesh else frozenset[str]()
    return Consequence(frozenset(roles) - unconcerned, _fixed(before) != _fixed(after))


def _fixed(settings: Settings) -> tuple[ProxySettings, str, tuple[str, ...]]:
    """What a proxy that runs cannot change; how many there are is no part of it."""
    proxy = msgspec.structs.replace(settings.proxy, count=1)
    return proxy, settings.node, settings.mesh.dns_upstreams
