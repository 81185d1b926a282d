"""Registrations of pods follow the API server, from the start of a pod to its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd import wire
from meshd.base.errors import MeshdError
from meshd.cni import request as cni
from meshd.cni.request import CniError, Request
from meshd.kubernetes.client import ApiError, Client
from meshd.kubernetes.objects import Meta, Namespace, Pod
from meshd.model.workload import Workload
from meshd.node.attaching import Attaching
from meshd.node.following_pods import FollowingPods
from meshd.wire import channel, doors, locating

IN_MESH = {"istio.io/dataplane-mode": "ambient"}


def meta(name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, **more}}


class FakeClient(Client):
    """Has objects by path."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {
            "/api/v1/namespaces/shop": meta("shop", labels=IN_MESH),
            "/api/v1/namespaces/shop/pods/web": meta("web", "shop", uid="1"),
        }

    async def get(self, path: str) -> bytes:
        if path not in self.objects:
            raise ApiError(404, f"{path} not found")
        return msgspec.json.encode(self.objects[path])


def asked(name: str = "web", uid: str = "1", namespace: str = "shop") -> Request:
    pod = cni.Pod(namespace, name, uid)
    result = msgspec.Raw(b'{"ips": [{"address": "198.18.0.5/24"}]}')
    return Request("ADD", "abc", "/run/netns/x", pod, cni.Config(prev_result=result))


def following(client: Client | None = None) -> FollowingPods:
    return FollowingPods(client or FakeClient(), "node1", {"kube-system"}, Path("/none"))


def described(found: FollowingPods, request: Request) -> Workload | None:
    return asyncio.run(found.describe(request))


def test_a_pod_is_described_as_it_is_at_that_moment() -> None:
    workload = described(following(), asked())
    assert workload is not None
    assert (workload.uid, workload.netns) == ("shop.web", "/run/netns/x")
    assert workload.addresses == ("198.18.0.5",)
    assert workload.enrolled


def test_the_pods_own_word_wins_over_its_namespace() -> None:
    client = FakeClient()
    labels = {"istio.io/dataplane-mode": "none"}
    client.objects["/api/v1/namespaces/shop/pods/web"] = meta("web", "shop", uid="1", labels=labels)
    workload = described(following(client), asked())
    assert workload is not None
    assert not workload.enrolled


def test_excluded_namespaces_are_left_alone() -> None:
    assert described(following(), asked(namespace="kube-system")) is None


@pytest.mark.parametrize("request_", [asked(uid="2"), asked("gone")])
def test_a_pod_that_is_another_one_or_gone_is_refused(request_: Request) -> None:
    with pytest.raises(CniError):
        described(following(), request_)


def test_a_node_that_has_another_name_in_kubernetes_is_told_which() -> None:
    client = FakeClient()
    pod = {**meta("web", "shop", uid="1"), "spec": {"nodeName": "node2"}}
    client.objects["/api/v1/namespaces/shop/pods/web"] = pod
    with pytest.raises(CniError, match="set node: node2"):
        described(following(client), asked())


def test_an_object_that_cannot_be_read_is_refused() -> None:
    client = FakeClient()
    client.objects["/api/v1/namespaces/shop"] = {"metadata": 7}
    with pytest.raises(MeshdError, match="cannot be read"):
        described(following(client), asked())


def changed(
    before: Workload, change: Callable[[FollowingPods], None], found: FollowingPods
) -> list[Workload]:
    change(found)
    return found.changed({before.uid: before})


def known() -> tuple[FollowingPods, Workload]:
    found = following()
    workload = described(found, asked())
    assert workload is not None
    return found, workload


def test_a_pod_leaves_and_joins_with_the_label_of_its_namespace() -> None:
    found, before = known()
    space = msgspec.convert(meta("shop"), Namespace)
    (after,) = changed(before, lambda one: one.namespace_changed(space), found)
    assert not after.enrolled
    space = msgspec.convert(meta("shop", labels=IN_MESH), Namespace)
    assert changed(after, lambda one: one.namespace_changed(space), found) == [before]


def test_what_does_not_matter_changes_nothing() -> None:
    found, before = known()
    pod = msgspec.convert(meta("web", "shop", uid="1", resourceVersion="9"), Pod)
    assert changed(before, lambda one: one.pod_changed(pod), found) == []


def test_readiness_is_told() -> None:
    found, before = known()
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    pod = msgspec.convert({**meta("web", "shop", uid="1"), "status": status}, Pod)
    (after,) = changed(before, lambda one: one.pod_changed(pod), found)
    assert after.ready


def test_a_pod_that_nothing_is_known_of_stays_as_it_is() -> None:
    found, before = known()
    assert changed(before, lambda one: one.pods_listed([]), found) == []
    assert changed(before, lambda one: one.namespaces_listed([]), found) == []


def test_the_end_of_a_pods_predecessor_does_not_touch_it() -> None:
    found, before = known()
    former = msgspec.convert(meta("web", "shop", uid="0"), Pod)
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    pod = msgspec.convert({**meta("web", "shop", uid="1"), "status": status}, Pod)
    found.pod_changed(pod)
    found.pod_removed(former)
    assert found.changed({before.uid: before})


def test_a_change_is_told_once_and_kept_over_a_restart(tmp_path: Path) -> None:
    found, before = known()
    told: list[wire.Message] = []

    async def handle(request: wire.ToMesh) -> wire.Message:
        told.append(request)
        return wire.Done()

    async def describe(_: Request) -> Workload:
        return before

    async def live() -> None:
        session = channel.answering(handle)
        path, record = tmp_path / "mesh.sock", tmp_path / "attached.json"
        async with await channel.listen(path, wire.MESH, session, uids={os.getuid()}):
            attaching = Attaching(path, record, describe)
            await attaching.handle(asked())
            found.namespace_changed(msgspec.convert(meta("shop"), Namespace))
            await attaching.update(found.changed(attaching.attached))
            await attaching.update(found.changed(attaching.attached))
            again = Attaching(path, record, describe)
            await again.update(found.changed(again.attached))

    asyncio.run(live())
    first, second = told
    assert isinstance(first, wire.Register)
    assert isinstance(second, wire.Register)
    assert [one.enrolled for one in (*first.workloads, *second.workloads)] == [True, False]


RUNNING = {"phase": "Running", "podIPs": [{"ip": "198.18.0.5"}]}


def pod(name: str = "web", namespace: str = "shop", **fields: Any) -> Pod:
    return msgspec.convert(
        {"status": RUNNING, **meta(name, namespace, uid=f"uid-{name}"), **fields}, Pod
    )


@pytest.mark.parametrize(
    ("found", "is_looked_for"),
    [
        (pod(), True),
        (pod(status={"phase": "Pending"}), False),
        (pod(status={"phase": "Running"}), False),
        (pod(spec={"hostNetwork": True}), False),
        (pod(namespace="kube-system"), False),
        (pod(namespace="elsewhere"), False),
    ],
)
def test_pods_that_run_and_are_to_join_are_looked_for_unless_a_runtime_attached_them(
    found: Pod, *, is_looked_for: bool
) -> None:
    following_ = following()
    following_.namespaces_listed([msgspec.convert(meta("shop", labels=IN_MESH), Namespace)])
    following_.pods_listed([found])
    assert (following_.unknown({}) == {found.metadata.uid: found}) is is_looked_for
    attached = Workload(uid="shop.web", name="web", namespace="shop", netns="/x")
    assert following_.unknown({"shop.web": attached}) == {}


def test_a_pod_that_ran_already_is_attached_where_it_was_found(tmp_path: Path) -> None:
    told: list[wire.Message] = []
    place = locating.Place("/proc/7/ns/net", 99)

    async def handle(request: wire.ToMesh) -> wire.Message:
        told.append(request)
        return wire.Done()

    async def locate(request: locating.Locate) -> wire.Message:
        return locating.Located(dict.fromkeys(request.pods, place))

    async def describe(_: Request) -> None:
        return None

    async def live() -> None:
        mesh, capture = tmp_path / "mesh.sock", tmp_path / "locate.sock"
        who = {os.getuid()}
        found = FollowingPods(FakeClient(), "node1", (), capture)
        found.namespaces_listed([msgspec.convert(meta("shop", labels=IN_MESH), Namespace)])
        known = pod()
        found.pods_listed([msgspec.structs.replace(known, metadata=UID_META)])
        session, locating_ = channel.answering(handle), channel.answering(locate)
        async with (
            await channel.listen(mesh, wire.MESH, session, uids=who),
            await channel.listen(capture, doors.LOCATING, locating_, uids=who),
        ):
            attaching = Attaching(mesh, tmp_path / "attached.json", describe)
            await found.adopt(attaching)
            await found.adopt(attaching)
            await attaching.update(found.changed(attaching.attached))
            ended = cni.Pod("shop", "web", UID_META.uid)
            await attaching.handle(Request("DEL", "sandbox", pod=ended))

    asyncio.run(live())
    first, last = told
    assert isinstance(first, wire.Register)
    (workload,) = first.workloads
    assert (workload.uid, workload.netns, workload.netns_cookie) == ("shop.web", place.netns, 99)
    assert workload.addresses == ("198.18.0.5",)
    assert last == wire.Unregister(("shop.web",))


UID_META = Meta(name="web", namespace="shop", uid="0b1c2d3e-0000-4000-8000-00000000000a")
