"""Columns that kubectl and Istio show of API objects. Pure but for the time of day."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshd.api.object_fields import kind_of, labels_of, name_of, namespace_of
from meshd.base.json_values import Json, JsonObject, list_at, list_in, mapping_in, text_at, value_at
from meshd.base.moments import age_of
from meshd.cli.output import Table

_Cell = Callable[[JsonObject], str]


def table(
    found: Sequence[JsonObject], *, prefix: str = "", wide: bool, with_namespace: bool
) -> Table:
    """Return a table of objects of one kind."""
    now = time.time()
    columns: list[tuple[str, _Cell]] = [
        ("NAME", lambda one: prefix + name_of(one)),
        *COLUMNS.get(kind_of(found[0]), ()),
        ("AGE", lambda one: age_of(text_at(one, "metadata", "creationTimestamp"), now)),
    ]
    if with_namespace and any(map(namespace_of, found)):
        columns.insert(0, ("NAMESPACE", namespace_of))
    if wide:
        columns.append(("LABELS", lambda one: _pairs(labels_of(one))))
    return Table(
        tuple(name for name, _ in columns),
        tuple(tuple(cell(one) for _, cell in columns) for one in found),
    )


def _spec(one: JsonObject, key: str) -> Json:
    return value_at(one, "spec", key)


def _list(key: str) -> _Cell:
    return lambda one: ",".join(str(part) for part in list_in(_spec(one, key)))


def _text(key: str, otherwise: str = "") -> _Cell:
    return lambda one: str(_spec(one, key) or otherwise)


def _pairs(values: Mapping[str, Json]) -> str:
    return ",".join(f"{key}={value}" for key, value in values.items())


def _service_ports(one: JsonObject) -> str:
    ports = map(mapping_in, list_in(_spec(one, "ports")))
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports)


def _external_addresses(one: JsonObject) -> str:
    """Return ``ADDRESS:PORT`` at which a LoadBalancer is reached from outside the mesh."""
    if _spec(one, "type") == "ExternalName":
        return str(_spec(one, "externalName"))
    reached = [
        f"{text_at(ingress, 'ip')}:{value_at(port, 'port')}"
        for ingress in list_at(one, "status", "loadBalancer", "ingress")
        for port in list_at(ingress, "ports")
    ]
    is_awaited = _spec(one, "type") == "LoadBalancer" and not reached
    return "<pending>" if is_awaited else ",".join(reached)


def _mtls(one: JsonObject) -> str:
    return text_at(one, "spec", "mtls", "mode") or "UNSET"


def _issuers(one: JsonObject) -> str:
    rules = list_at(one, "spec", "jwtRules")
    return ",".join(text_at(rule, "issuer") or text_at(rule, "jwksUri") for rule in rules)


COLUMNS: Final[dict[str, tuple[tuple[str, _Cell], ...]]] = {
    "Namespace": (),
    "ServiceAccount": (),
    "Secret": (),
    "VirtualService": (("GATEWAYS", _list("gateways")), ("HOSTS", _list("hosts"))),
    "DestinationRule": (("HOST", _text("host")),),
    "Gateway": (("SELECTOR", lambda one: _pairs(mapping_in(_spec(one, "selector")))),),
    "ServiceEntry": (
        ("HOSTS", _list("hosts")),
        ("LOCATION", _text("location", "MESH_EXTERNAL")),
        ("RESOLUTION", _text("resolution", "NONE")),
    ),
    "WorkloadEntry": (("ADDRESS", _text("address")),),
    "WorkloadGroup": (),
    "PeerAuthentication": (("MODE", _mtls),),
    "AuthorizationPolicy": (("ACTION", _text("action", "ALLOW")),),
    "RequestAuthentication": (("ISSUERS", _issuers),),
    "Service": (
        ("TYPE", _text("type", "ClusterIP")),
        ("CLUSTER-IP", _text("clusterIP")),
        ("EXTERNAL-IP", _external_addresses),
        ("PORT(S)", _service_ports),
    ),
}
"""Beside name and age, of each kind that is stored."""
