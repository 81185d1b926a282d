"""The kubernetes role: answers container runtimes, by way of the CNI plugin."""

from __future__ import annotations

import asyncio
import os

from meshd.base.errors import InvalidInputError
from meshd.cni import describing, door
from meshd.cni import request as requests
from meshd.cni.request import CniError, Request
from meshd.model.workload import Workload
from meshd.node.attaching import Attaching
from meshd.settings import Paths, Settings


async def run(settings: Settings, paths: Paths) -> None:
    """Run until cancelled. Raises MeshdError if the role cannot start."""
    if os.geteuid() == 0:
        raise InvalidInputError("the kubernetes role needs no privileges: start it as another user")
    namespace = settings.kubernetes.container_namespace

    async def describe(request: Request) -> Workload | None:
        if request.pod and request.pod.namespace in settings.kubernetes.exclude_namespaces:
            return None
        if request.pod:
            reason = f"pod {request.pod.namespace}/{request.pod.name}: pods are not known here"
            raise CniError(requests.TRY_AGAIN, reason, "run without kubernetes.enabled")
        return describing.of_container(request, namespace)

    attaching = Attaching(paths.socket("mesh"), paths.cni.with_name("attached.json"), describe)
    async with await door.listen(paths.cni, attaching.handle), asyncio.TaskGroup() as tasks:
        tasks.create_task(attaching.run())
