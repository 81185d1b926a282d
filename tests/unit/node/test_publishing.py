"""The node compiles and publishes when something changed, and then only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from meshd.api.read import read_objects
from meshd.base.errors import InvalidInputError
from meshd.compile.names import workload_of
from meshd.compile.replacement.isolation import Isolating
from meshd.config.store import Store
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.node.publishing import Inputs, Publishing
from meshd.registry.snapshots import Given
from meshd.xds.resources import LISTENER
from tests.unit import storing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from meshd.xds.resources import Resources

SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: shop}
spec:
  hosts: [db.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 198.18.9.1}]
"""
WEB = Workload(
    uid="shop.web",
    name="web",
    namespace="shop",
    netns="/run/netns/web",
    addresses=("198.18.0.1",),
    enrolled=True,
)
INPUTS = Inputs((WEB,))


class Mesh:
    """Publishes what a store has, and keeps each publication."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "config.d", directory / "lib")
        self.published: list[Mapping[Pool, Resources]] = []
        self.publishing = Publishing(
            self.store, MeshOptions(), "198.19.0.0/16", self.published.append
        )
        self.store.subscribe(self.retake)
        self.retake()

    def retake(self) -> None:
        self.publishing.retake(lambda: INPUTS)

    def take(self) -> Snapshot:
        self.publishing.finish_snapshot()
        assert self.publishing.snapshot
        return self.publishing.snapshot

    def settle(self, *served: Workload, resolvers: Mapping[str, str] = {}) -> None:
        by_uid = {one.uid: one for one in served or (WEB,)}
        for _ in range(2):
            self.publishing.publish(self.take(), by_uid, resolvers)
            self.publishing.finish_publication()

    def apply(self, text: str) -> None:
        storing.put(self.store, [read.object for read in read_objects(text, "test.yaml")])


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    (tmp_path / "lib").mkdir()
    return Mesh(tmp_path)


@pytest.mark.parametrize("lost", [(), ("applied.json",)])
def test_a_dry_run_plans_what_is_published(tmp_path: Path, lost: tuple[str, ...]) -> None:
    mesh = Mesh(tmp_path)
    mesh.apply(SERVICE)
    mesh.store.lost = lost
    mesh.retake()
    taken = mesh.take()
    wanted = mesh.publishing.wanted(INPUTS, Given.of(mesh.store))
    assert (wanted.services, wanted.workloads) == (taken.services, taken.workloads)
    assert (wanted.peer_authentications, wanted.destination_rules) == (
        taken.peer_authentications,
        taken.destination_rules,
    )


def test_nothing_is_compiled_or_published_again_when_nothing_changed(mesh: Mesh) -> None:
    mesh.apply(SERVICE)
    for _ in range(3):
        mesh.settle()
    mesh.retake()
    mesh.settle()
    assert len(mesh.published) == 1


def test_each_input_that_changes_is_published(mesh: Mesh) -> None:
    mesh.settle()
    mesh.apply(SERVICE)
    mesh.settle()
    mesh.settle(resolvers={"shop": "127.0.0.1"})
    mesh.settle(Workload(uid="shop.web", name="web", namespace="shop", netns="/pinned"))
    assert len(mesh.published) == 4


def test_the_last_publication_is_in_force(mesh: Mesh) -> None:
    assert mesh.publishing.in_force is None
    mesh.apply(SERVICE)
    mesh.settle(resolvers={"shop": "127.0.0.1"})
    mesh.apply(SERVICE.replace("db", "other"))
    mesh.take()
    assert mesh.publishing.in_force
    assert set(mesh.publishing.in_force.services) == {"db.example"}
    assert mesh.publishing.in_force.resolvers == {"shop": "127.0.0.1"}


def test_a_virtual_address_stays_as_it_was_when_a_new_node_takes_the_snapshot(
    mesh: Mesh, tmp_path: Path
) -> None:
    mesh.apply(SERVICE)
    before = mesh.take().services
    assert Mesh(tmp_path).take().services == before


def test_a_failed_compilation_leaves_the_last_publication_and_is_reported_each_time(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh.settle()
    mesh.apply(SERVICE)
    compiled: list[object] = []

    def fails(*_: object) -> None:
        compiled.append(1)
        raise InvalidInputError("no")

    with monkeypatch.context() as patched:
        patched.setattr(Isolating, "compile", fails)
        for _ in range(2):
            with pytest.raises(InvalidInputError):
                mesh.settle()
    assert (len(compiled), len(mesh.published)) == (1, 1)
    mesh.apply(SERVICE.replace("db", "other"))
    mesh.settle()
    assert len(mesh.published) == 2


def test_listeners_of_a_workload_that_left_go_before_anything_is_compiled(mesh: Mesh) -> None:
    def listeners() -> set[str]:
        names = {name for one in mesh.published[-1].values() for name in one.of_type(LISTENER)}
        return {workload_of(name) for name in names} - {""}

    other = msgspec.structs.replace(WEB, uid="shop.other", name="other", netns="/run/netns/other")
    mesh.settle(WEB, other)
    assert listeners() == {WEB.uid, other.uid}
    mesh.apply(SERVICE)
    mesh.publishing.publish(mesh.take(), {WEB.uid: WEB}, {})
    assert mesh.publishing.busy
    assert listeners() == {WEB.uid}


def test_a_change_is_tried_with_the_replacements_of_objects_out_of_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d" / "a.yaml").write_text(SERVICE)
    mesh = Mesh(tmp_path)
    mesh.store.withhold(lambda _: "it kills")
    tried: list[Snapshot] = []

    def refused(snapshot: Snapshot, *_: object) -> tuple[str, ...]:
        tried.append(snapshot)
        return ()

    monkeypatch.setattr("meshd.node.publishing.refused", refused)
    mesh.publishing.refusals(INPUTS, Given.of(mesh.store), mesh.store.objects, ())
    (service,) = tried[0].services.values()
    assert service.closed
