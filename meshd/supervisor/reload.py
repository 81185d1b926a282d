"""What is to begin anew when the settings have changed. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import msgspec

from meshd.resolver.command import NAME as RESOLVER
from meshd.settings import ProxySettings, Settings


@dataclasses.dataclass(frozen=True, slots=True)
class Consequence:
    restart: frozenset[str] = frozenset()
    """Roles, which read their settings at their start."""
    replace: bool = False
    """Every proxy."""


def consequence(before: Settings, after: Settings, roles: Collection[str]) -> Consequence:
    """``roles``: all that there are."""
    if before == after:
        return Consequence()
    unconcerned = {RESOLVER} if before.mesh == after.mesh else set[str]()
    replace = _fixed(before.proxy) != _fixed(after.proxy) or before.node != after.node
    return Consequence(frozenset(roles) - unconcerned, replace)


def _fixed(proxy: ProxySettings) -> ProxySettings:
    """What a proxy that runs cannot change; how many there are is no part of it."""
    return msgspec.structs.replace(proxy, count=0)
