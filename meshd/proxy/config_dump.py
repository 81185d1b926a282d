"""Sections of the configuration that a proxy has, as Envoy shows them, without private keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from meshd.base.errors import InvalidInputError, MeshdError, NotReadyError
from meshd.proxy.admin import Admin
from meshd.proxy.bootstrap import member_name

Entry = dict[str, Any]

_KINDS: Final = {
    "listeners": ("ListenersConfigDump", ("static_listeners", "dynamic_listeners")),
    "clusters": (
        "ClustersConfigDump",
        ("static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"),
    ),
    "routes": ("RoutesConfigDump", ("static_route_configs", "dynamic_route_configs")),
    "endpoints": ("EndpointsConfigDump", ("static_endpoint_configs", "dynamic_endpoint_configs")),
    "secrets": (
        "SecretsConfigDump",
        ("static_secrets", "dynamic_active_secrets", "dynamic_warming_secrets"),
    ),
}
"""Section → the last part of its type's name, and the fields that hold its entries."""


async def section(admin_run: Path, names: Sequence[str], what: str) -> list[Entry]:
    """Return a section of the first member that answers. Raises InvalidInputError,
    NotReadyError."""
    if what not in _KINDS:
        raise InvalidInputError(f"no section {what!r} (known: {', '.join(_KINDS)})")
    reasons: list[str] = []
    for name in names:
        admin = Admin(admin_run / f"{member_name(name)}.sock")
        try:
            return entries(await admin.config_dump(endpoints=what == "endpoints"), what)
        except MeshdError as error:
            reasons.append(str(error))
    raise NotReadyError("; ".join(reasons) or "there is no proxy to ask")


def entries(dump: Entry, what: str) -> list[Entry]:
    """Return the entries of a section in the answer of ``/config_dump``."""
    kind, fields = _KINDS[what]
    parts: Iterable[Entry] = dump.get("configs", ())
    return [
        entry
        for part in parts
        if str(part.get("@type", "")).endswith(f".{kind}")
        for field in fields
        for entry in part.get(field, ())
    ]
