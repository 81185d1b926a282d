"""Who can be sent requests, as a node's record and each of its proxies have it right now.

For a failure's message: where the two differ, what is between them is to be looked at.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from meshd.base.errors import MeshdError
from meshd.proxy.admin import Admin
from meshd.proxy.bootstrap import member_name
from meshd.workloads import record as workloads

if TYPE_CHECKING:
    from tests.node.conftest import Node


def endpoints(node: Node, host: str) -> str:
    """``host``: the beginning of a service's name."""
    record = workloads.load(node.paths.workloads).record
    lines = [
        f"{uid}: {'ready' if one.ready else 'NOT READY'}"
        f", {record.lives[uid].phase if uid in record.lives else 'outside'}"
        for uid, one in record.registered.items()
    ]
    try:
        status = node.statuses()
    except MeshdError as error:
        lines.append(f"mesh: {error}")
    else:
        control = status.control
        lines += [f"server: connected: {control.connected} {control.problem}"] if control else []
        for proxy in status.proxies:
            synced = "has everything" if proxy.synced else "NOT SYNCED"
            lines.append(f"{proxy.name}: {synced}; {asyncio.run(_held(node, proxy.name, host))}")
    return "\n".join(lines)


async def _held(node: Node, name: str, host: str) -> str:
    admin = Admin(node.paths.admin_run / f"{member_name(name)}.sock")
    try:
        clusters = (await admin.clusters())["cluster_statuses"]
        warming = (await admin.stats("warming_clusters")).get("cluster_manager.warming_clusters")
    except MeshdError as error:
        return str(error)
    found = [_shown(one) for one in clusters if f"|{host}." in one["name"]]
    return f"warming: {warming}; {'; '.join(found) or f'no cluster of {host}'}"


def _shown(cluster: dict[str, Any]) -> str:
    """A host that is well says EDS: HEALTHY and nothing else."""
    hosts = [
        f"{_address(one['address'])} {one['health_status']}"
        for one in cluster.get("host_statuses", ())
    ]
    return f"{cluster['name']} [{', '.join(hosts)}]"


def _address(address: dict[str, Any]) -> str:
    if "envoy_internal_address" in address:
        return "{server_listener_name}/{endpoint_id}".format_map(address["envoy_internal_address"])
    return str(address["socket_address"]["address"])
