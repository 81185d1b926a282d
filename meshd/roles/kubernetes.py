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
    wanted = settings.kubernetes
    client = Client(kubeconfig.load(Path(wanted.kubeconfig))) if wanted.kubeconfig else None
    excluded = wanted.exclude_namespaces
    pods = FollowingPods(client, settings.node_name, excluded) if client else None

    async def describe(request: Request) -> Workload | None:
        if not request.pod:
            return describing.of_container(request, wanted.container_namespace)
        if request.pod.namespace in excluded:
            return None
        if pods:
            return await pods.describe(request)
        shown = f"{request.pod.namespace}/{request.pod.name}"
        raise CniError(requests.TRY_AGAIN, f"pod {shown} is not known", _UNKNOWN)

    attaching = Attaching(paths.socket("mesh"), paths.cni.with_name("attached.json"), describe)
    async with await door.listen(paths.cni, attaching.handle), asyncio.TaskGroup() as tasks:
        tasks.create_task(attaching.run())
        if client and pods:
            tasks.create_task(pods.run(attaching))
            tasks.create_task(TellingCluster(client, paths.socket("mesh")).run())
