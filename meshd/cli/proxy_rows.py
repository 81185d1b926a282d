"""Columns that readers of istioctl know, from Envoy's own JSON. Pure.

The values are those of Envoy's admin interface, ``/config_dump`` and ``/clusters?format=json``:
https://www.envoyproxy.io/docs/envoy/latest/api-v3/admin/v3/config_dump_shared.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from meshd.cli.output import Table

_Entry = dict[str, Any]

_COLUMNS: Final = {
    "listeners": ("NAME", "ADDRESS", "PORT", "NETNS", "CHAINS"),
    "clusters": ("SERVICE", "PORT", "SUBSET", "DIRECTION", "TYPE"),
    "routes": ("NAME", "VIRTUAL HOST", "DOMAINS", "MATCH", "TO"),
    "endpoints": ("ENDPOINT", "STATUS", "WEIGHT", "CLUSTER"),
    "secrets": ("NAME", "TYPE", "UPDATED"),
}


def table(section: str, found: Sequence[_Entry]) -> Table:
    return Table(_COLUMNS[section], tuple(row for entry in found for row in _rows(section, entry)))


def name_of(section: str, entry: _Entry) -> str:
    inner = _inner(section, entry)
    return str(inner.get("name") or inner.get("cluster_name") or entry.get("name", ""))


def _inner(section: str, entry: _Entry) -> _Entry:
    """Return the resource itself, which a dump wraps with its version and state."""
    wrapped = entry.get("active_state") or entry.get("warming_state") or entry
    key = {
        "listeners": "listener",
        "clusters": "cluster",
        "routes": "route_config",
        "endpoints": "endpoint_config",
        "secrets": "secret",
    }[section]
    inner = wrapped.get(key)
    return inner if isinstance(inner, dict) else wrapped


def _rows(section: str, entry: _Entry) -> Iterator[tuple[str, ...]]:
    inner = _inner(section, entry)
    if section == "listeners":
        yield from _listener(name_of(section, entry), inner)
    elif section == "clusters":
        yield _cluster(inner)
    elif section == "routes":
        yield from _routes(inner)
    elif section == "endpoints":
        yield from _endpoints(inner)
    else:
        kinds = {"tls_certificate": "certificate", "validation_context": "trust bundle"}
        kind = next((said for key, said in kinds.items() if key in inner), "")
        yield name_of(section, entry), kind, str(entry.get("last_updated", ""))


def _listener(name: str, inner: _Entry) -> Iterator[tuple[str, ...]]:
    chains = str(len(inner.get("filter_chains", ())) + ("default_filter_chain" in inner))
    first = inner.get("address", {})
    for address in (
        first,
        *(more.get("address", {}) for more in inner.get("additional_addresses", ())),
    ):
        socket = address.get("socket_address", {})
        where = socket.get("address") or ("(internal)" if "internal_listener" in inner else "")
        port = str(socket.get("port_value", ""))
        yield name, where, port, socket.get("network_namespace_filepath", ""), chains


def _cluster(inner: _Entry) -> tuple[str, ...]:
    """Return a cluster's columns; names follow Istio: ``outbound|PORT|SUBSET|HOST``."""
    name = str(inner.get("name", ""))
    kind = str(inner.get("type") or inner.get("cluster_type", {}).get("name", "STATIC"))
    direction, *parts = name.split("|")
    if len(parts) != 3:
        return name, "", "", "", kind
    port, subset, host = parts
    return host, port, subset, direction, kind


def _routes(inner: _Entry) -> Iterator[tuple[str, ...]]:
    name = str(inner.get("name", ""))
    for host in inner.get("virtual_hosts", ()):
        domains = ",".join(host.get("domains", ()))
        for route in host.get("routes", ()):
            yield name, host.get("name", ""), domains, _match(route), _action(route)


def _match(route: _Entry) -> str:
    match = route.get("match", {})
    for key, sign in (("prefix", "*"), ("path", ""), ("path_separated_prefix", "[/*]")):
        if key in match:
            path = f"{match[key]}{sign}"
            break
    else:
        path = "~" + match.get("safe_regex", {}).get("regex", "")
    headers = ",".join(one.get("name", "") for one in match.get("headers", ()))
    return f"{path} with {headers}" if headers else path


def _action(route: _Entry) -> str:
    if "redirect" in route:
        return "redirect"
    if "direct_response" in route:
        return f"status {route['direct_response'].get('status', '')}"
    action = route.get("route", {})
    weighted = action.get("weighted_clusters", {}).get("clusters", ())
    if weighted:
        return ",".join(f"{one.get('name')}={one.get('weight', 0)}" for one in weighted)
    return str(action.get("cluster") or action.get("cluster_header", ""))


def _endpoints(inner: _Entry) -> Iterator[tuple[str, ...]]:
    """Yield endpoints from ``/clusters``, which has their health, or from a dump."""
    if "host_statuses" in inner:
        for host in inner["host_statuses"]:
            health = host.get("health_status", {})
            failed = [key for key, value in health.items() if value is True]
            status = ",".join(failed) or health.get("eds_health_status", "HEALTHY")
            weight = str(host.get("weight", ""))
            yield _address(host.get("address", {})), status, weight, inner.get("name", "")
        return
    for locality in inner.get("endpoints", ()):
        for host in locality.get("lb_endpoints", ()):
            address = _address(host.get("endpoint", {}).get("address", {}))
            status = host.get("health_status", "HEALTHY")
            weight = str(host.get("load_balancing_weight", ""))
            yield address, status, weight, inner.get("cluster_name", "")


def _address(address: _Entry) -> str:
    if socket := address.get("socket_address"):
        host = socket.get("address", "")
        return f"{f'[{host}]' if ':' in host else host}:{socket.get('port_value', '')}"
    if pipe := address.get("pipe"):
        return str(pipe.get("path", ""))
    internal = address.get("envoy_internal_address", {})
    listener, place = internal.get("server_listener_name", ""), internal.get("endpoint_id", "")
    # What follows the address tells workloads apart that have it one after another.
    return f"{listener}/{place.partition(';')[0]}" if place else str(listener)
