"""Keeps the registrations of this node's pods as the API server has them.

What a runtime attaches is described by what the API server says at that moment; what changes later
(labels, readiness, the labels of its namespace) is told the mesh role when it is heard of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from meshd.base.errors import UNDECODABLE
from meshd.cni import request as requests
from meshd.cni.request import CniError, Request
from meshd.kubernetes.client import ApiError, Client
from meshd.kubernetes.objects import Followed, Namespace, Pod
from meshd.kubernetes.pods import of_pod
from meshd.kubernetes.watching import Watch
from meshd.model.workload import Workload
from meshd.node.attaching import Attaching
from meshd.registry import membership

F = TypeVar("F", bound=Followed)
_NOT_FOUND: Final = 404
_PODS: Final = "/api/v1/pods"
_NAMESPACES: Final = "/api/v1/namespaces"


class FollowingPods:
    """``node`` is the node's name in Kubernetes; pods of ``excluded`` namespaces are left alone."""

    def __init__(self, client: Client, node: str, excluded: Collection[str]) -> None:
        self._client = client
        self._node = node
        self._excluded = excluded
        self._pods: dict[tuple[str, str], Pod] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._changed = asyncio.Event()

    # ---- what a runtime asks

    async def describe(self, request: Request) -> Workload | None:
        """Return the workload of a pod; None if meshd has nothing to do with it. Raises
        MeshdError."""
        asked = request.pod
        if asked is None or asked.namespace in self._excluded:
            return None
        path = f"{_NAMESPACES}/{asked.namespace}"
        pod, namespace = await asyncio.gather(
            self._one(f"{path}/pods/{asked.name}", Pod), self._one(path, Namespace)
        )
        if asked.uid and pod.metadata.uid != asked.uid:
            reason = f"pod {asked.namespace}/{asked.name} is another one by now"
            raise CniError(requests.TRY_AGAIN, reason, "the runtime tries it again")
        # It may be newer than what was heard of.
        self._namespaces[asked.namespace] = namespace
        self._pods[pod.key] = pod
        return self._workload(pod, request.netns, request.addresses)

    async def _one(self, path: str, kind: type[F]) -> F:
        """Raises CniError."""
        try:
            return msgspec.json.decode(await self._client.get(path), type=kind)
        except ApiError as error:
            advice = "the runtime tries it again"
            if error.status == _NOT_FOUND:
                advice = "it has been deleted"
            raise CniError(requests.TRY_AGAIN, str(error), advice) from None
        except UNDECODABLE as error:
            raise CniError(requests.TRY_AGAIN, f"{path} cannot be read", str(error)) from None

    def _workload(self, pod: Pod, netns: str, addresses: tuple[str, ...]) -> Workload:
        namespace, meta = self._namespaces.get(pod.metadata.namespace), pod.metadata
        labels = namespace.metadata.labels if namespace else {}
        decided = membership.decide(labels, meta.labels, meta.annotations, otherwise=False)
        return of_pod(pod, netns, addresses, enrolled=decided.enrolled)

    # ---- what changes

    async def run(self, attaching: Attaching) -> None:
        """Follow until cancelled."""
        only = {"fieldSelector": f"spec.nodeName={self._node}"}
        pods = Watch(
            self._client,
            _PODS,
            Pod,
            listed=self.pods_listed,
            changed=self.pod_changed,
            removed=self.pod_removed,
            only=only,
        )
        namespaces = Watch(
            self._client,
            _NAMESPACES,
            Namespace,
            listed=self.namespaces_listed,
            changed=self.namespace_changed,
            removed=self.namespace_removed,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(pods.run())
            tasks.create_task(namespaces.run())
            tasks.create_task(self._tell(attaching))

    async def _tell(self, attaching: Attaching) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await attaching.update(self.changed(attaching.attached))

    def changed(self, attached: Mapping[str, Workload]) -> list[Workload]:
        """Return the workloads that are not as they were attached, by what is known now."""
        return list(self._differing(attached.values()))

    def _differing(self, attached: Iterable[Workload]) -> Iterable[Workload]:
        for before in attached:
            pod = self._pods.get((before.namespace, before.name))
            if pod is None or before.namespace not in self._namespaces:
                continue
            after = self._workload(pod, before.netns, before.addresses)
            if after != before:
                yield after

    def pods_listed(self, pods: Sequence[Pod]) -> None:
        self._pods = {one.key: one for one in pods}
        self._changed.set()

    def pod_changed(self, pod: Pod) -> None:
        self._pods[pod.key] = pod
        self._changed.set()

    def pod_removed(self, pod: Pod) -> None:
        known = self._pods.get(pod.key)
        if known and known.metadata.uid == pod.metadata.uid:
            del self._pods[pod.key]

    def namespaces_listed(self, namespaces: Sequence[Namespace]) -> None:
        self._namespaces = {one.metadata.name: one for one in namespaces}
        self._changed.set()

    def namespace_changed(self, namespace: Namespace) -> None:
        self._namespaces[namespace.metadata.name] = namespace
        self._changed.set()

    def namespace_removed(self, namespace: Namespace) -> None:
        self._namespaces.pop(namespace.metadata.name, None)
