"""The kubernetes role: answers container runtimes, by way of the CNI plugin."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from meshd.base.errors import InvalidInputError
from meshd.cni import describing, door
from meshd.cni import request as requests
from meshd.cni.request import CniError, Request
from meshd.kubernetes import kubeconfig
from meshd.kubernetes.client import Client
from meshd.model.workload import Workload
from meshd.node.attaching import Attaching
from meshd.node.following_pods import FollowingPods
from meshd.node.telling_cluster import TellingCluster
from meshd.settings import Paths, Settings

_UNKNOWN: Final = "name a file by which the API server is asked: setting kubernetes.kubeconfig"


async def run(settings: Settings, paths: Paths) -> None:
    """Run until cancelled. Raises MeshdError if the role cannot start."""
    if os.geteuid() == 0:
        raise InvalidInputError("the kubernetes role needs no privileges: start it as another user")
    wanted, mesh = settings.kubernetes, paths.socket("mesh")
    cluster = _Cluster(settings, paths) if wanted.kubeconfig else None

    async def describe(request: Request) -> Workload | None:
        if not request.pod:
            return describing.of_container(request, wanted.container_namespace)
        if request.pod.namespace in wanted.exclude_namespaces:
            return None
        if cluster:
            return await cluster.pods.describe(request)
        shown = f"{request.pod.namespace}/{request.pod.name}"
        raise CniError(requests.TRY_AGAIN, f"pod {shown} is not known", _UNKNOWN)

    attaching = Attaching(
        mesh,
        paths.cni.with_name("attached.json"),
        describe,
        fails_open=settings.fails_open,
        added=cluster.pods.note if cluster else lambda: None,
    )
    async with await door.listen(paths.cni, attaching.handle), asyncio.TaskGroup() as tasks:
        tasks.create_task(attaching.run())
        if cluster:
            tasks.create_task(cluster.pods.run(attaching))
            tasks.create_task(cluster.telling.run(cluster.pods.watches))


class _Cluster:
    """What is followed in the API server."""

    def __init__(self, settings: Settings, paths: Paths) -> None:
        """Raises InvalidInputError."""
        wanted = settings.kubernetes
        client = Client(kubeconfig.load(Path(wanted.kubeconfig)))
        self.telling = TellingCluster(client, paths.socket("mesh"))
        excluded, noted = wanted.exclude_namespaces, self.telling.note
        self.pods = FollowingPods(client, settings.node_name, excluded, paths.locate, noted)
