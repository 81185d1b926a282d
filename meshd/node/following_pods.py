"""Keeps the registrations of this node's pods as the API server has them.

What a runtime attaches is described by what the API server says at that moment; what changes later
(labels, readiness, the labels of its namespace) is told the mesh role when it is heard of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from meshd.base import journal
from meshd.base.errors import UNDECODABLE, MeshdError
from meshd.cni import request as requests
from meshd.cni.request import CniError, Request
from meshd.kubernetes.client import NOT_FOUND, ApiError, Client
from meshd.kubernetes.objects import Followed, Namespace, Pod
from meshd.kubernetes.pods import fitting, of_pod
from meshd.kubernetes.watching import Watch
from meshd.model.workload import Workload
from meshd.node.attaching import Attaching, found_before
from meshd.registry import membership
from meshd.wire import channel, locating

F = TypeVar("F", bound=Followed)
_LOOK: Final = 5.0
"""Seconds between looks for pods that are not found."""
_MOST: Final = 500
"""Pods that are looked for at a time."""
_log: Final = logging.getLogger(__name__)
_PODS: Final = "/api/v1/pods"
_NAMESPACES: Final = "/api/v1/namespaces"


class FollowingPods:
    """``node`` is the node's name in Kubernetes; pods of ``excluded`` namespaces are left alone;
    ``capture`` is the socket at which pods are looked for."""

    def __init__(
        self,
        client: Client,
        node: str,
        excluded: Collection[str],
        capture: Path,
        noted: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow nothing yet. ``noted`` is called when something of ``watches`` is not followed, or
        is again."""
        self._client = client
        self._node = node
        self._capture = capture
        self._excluded = excluded
        self._pods: dict[tuple[str, str], Pod] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._changed = asyncio.Event()
        only = {"fieldSelector": f"spec.nodeName={node}"}
        pods = Watch(
            client,
            _PODS,
            Pod,
            listed=self.pods_listed,
            changed=self.pod_changed,
            removed=self.pod_removed,
            only=only,
            noted=noted,
        )
        namespaces = Watch(
            client,
            _NAMESPACES,
            Namespace,
            listed=self.namespaces_listed,
            changed=self.namespace_changed,
            removed=self.namespace_removed,
            noted=noted,
        )
        self.watches: tuple[Watch[Any], ...] = pods, namespaces

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
        if pod.spec.node_name not in {"", self._node}:
            reason = f"this node is {self._node}, and {pod.spec.node_name} in Kubernetes"
            advice = f"set node: {pod.spec.node_name} in meshd.yaml"
            raise CniError(requests.TRY_AGAIN, reason, advice)
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
            if error.status == NOT_FOUND:
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

    def note(self) -> None:
        """Look again whether what is attached is as it should be."""
        self._changed.set()

    async def run(self, attaching: Attaching) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for watch in self.watches:
                tasks.create_task(watch.run())
            tasks.create_task(self._tell(attaching))

    async def _tell(self, attaching: Attaching) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK if self.unknown(attaching.attached) else None):
                    await self._changed.wait()
            self._changed.clear()
            await attaching.update(self.changed(attaching.attached))
            try:
                await self.adopt(attaching)
            except MeshdError as error:
                journal.event(_log, logging.WARNING, "kubernetes", "%s", error)

    async def adopt(self, attaching: Attaching) -> None:
        """Attach pods that ran before the plugin did. Raises MeshdError."""
        unknown = self.unknown(attaching.attached)
        if not unknown:
            return
        asked = {uid: one.addresses for uid, one in list(unknown.items())[:_MOST]}
        answer = await channel.call(self._capture, locating.Locate(asked))
        found = answer.places if isinstance(answer, locating.Located) else {}
        for uid, place in found.items():
            workload = self._workload(unknown[uid], place.netns, unknown[uid].addresses)
            placed = msgspec.structs.replace(workload, netns_cookie=place.cookie)
            await attaching.adopt(found_before(uid), placed)

    def unknown(self, attached: Mapping[str, Workload]) -> dict[str, Pod]:
        """Return the pods that are to be in the mesh and that no runtime has attached, by their
        uids. Of others nothing has to be known: one that joins later is looked for then."""
        return {
            pod.metadata.uid: pod
            for pod in self._pods.values()
            if pod.is_running
            and not pod.spec.host_network
            and pod.addresses
            and pod.metadata.namespace not in self._excluded
            and f"{pod.metadata.namespace}.{fitting(pod.metadata.name)}" not in attached
            and self._workload(pod, "", ()).enrolled
        }

    def changed(self, attached: Mapping[str, Workload]) -> list[Workload]:
        """Return the workloads that are not as they were attached, by what is known now."""
        return list(self._differing(attached.values()))

    def _differing(self, attached: Iterable[Workload]) -> Iterable[Workload]:
        for before in attached:
            pod = self._pods.get((before.namespace, before.name))
            if pod is None or before.namespace not in self._namespaces:
                continue
            described = self._workload(pod, before.netns, before.addresses)
            after = msgspec.structs.replace(described, netns_cookie=before.netns_cookie)
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
