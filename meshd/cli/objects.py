"""Columns that kubectl and Istio show of API objects. Pure but for the time of day."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, Final

from meshd.cli.output import Table

_Cell = Callable[[dict[str, Any]], str]


def table(
    found: Sequence[dict[str, Any]], *, prefix: str = "", wide: bool, with_namespace: bool
) -> Table:
    """Return a table of objects of one kind."""
    now = datetime.datetime.now(datetime.UTC)
    columns: list[tuple[str, _Cell]] = [
        ("NAME", lambda one: prefix + one["metadata"]["name"]),
        *_COLUMNS.get(found[0]["kind"], ()),
        ("AGE", lambda one: age_of(one["metadata"].get("creationTimestamp", ""), now)),
    ]
    if with_namespace and any(one["metadata"].get("namespace") for one in found):
        columns.insert(0, ("NAMESPACE", lambda one: one["metadata"].get("namespace", "")))
    if wide:
        columns.append(("LABELS", lambda one: _pairs(one["metadata"].get("labels", {}))))
    return Table(
        tuple(name for name, _ in columns),
        tuple(tuple(cell(one) for _, cell in columns) for one in found),
    )


def age_of(created: str, now: datetime.datetime) -> str:
    """Return the age of an RFC 3339 time; empty if the text is not one."""
    try:
        return age((now - datetime.datetime.fromisoformat(created)).total_seconds())
    except (ValueError, TypeError):
        return ""


def age(seconds: float) -> str:
    """Format a duration as ``5m``, ``3h``, ``12d``: in the largest unit that fits at least once."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _spec(one: dict[str, Any], key: str) -> Any:
    value = one.get("spec", {}).get(key)
    return "" if value is None else value


def _list(key: str) -> _Cell:
    return lambda one: ",".join(str(part) for part in _spec(one, key))


def _text(key: str, otherwise: str = "") -> _Cell:
    return lambda one: str(_spec(one, key) or otherwise)


def _pairs(values: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in values.items())


def _service_ports(one: dict[str, Any]) -> str:
    ports: list[dict[str, Any]] = _spec(one, "ports") or []
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports)


def _external_addresses(one: dict[str, Any]) -> str:
    """Return ``ADDRESS:PORT`` at which a LoadBalancer is reached from outside the mesh."""
    if _spec(one, "type") == "ExternalName":
        return str(_spec(one, "externalName"))
    balancer: dict[str, Any] = one.get("status", {}).get("loadBalancer", {})
    reached = [
        f"{ingress['ip']}:{port['port']}"
        for ingress in balancer.get("ingress", ())
        for port in ingress["ports"]
    ]
    is_awaited = _spec(one, "type") == "LoadBalancer" and not reached
    return "<pending>" if is_awaited else ",".join(reached)


def _mtls(one: dict[str, Any]) -> str:
    return (_spec(one, "mtls") or {}).get("mode", "UNSET")


_COLUMNS: Final[dict[str, tuple[tuple[str, _Cell], ...]]] = {
    "VirtualService": (("GATEWAYS", _list("gateways")), ("HOSTS", _list("hosts"))),
    "DestinationRule": (("HOST", _text("host")),),
    "Gateway": (("SELECTOR", lambda one: _pairs(_spec(one, "selector") or {})),),
    "ServiceEntry": (
        ("HOSTS", _list("hosts")),
        ("LOCATION", _text("location", "MESH_EXTERNAL")),
        ("RESOLUTION", _text("resolution", "NONE")),
    ),
    "WorkloadEntry": (("ADDRESS", _text("address")),),
    "PeerAuthentication": (("MODE", _mtls),),
    "Service": (
        ("TYPE", _text("type", "ClusterIP")),
        ("CLUSTER-IP", _text("clusterIP")),
        ("EXTERNAL-IP", _external_addresses),
        ("PORT(S)", _service_ports),
    ),
}
