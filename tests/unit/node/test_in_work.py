"""What the mesh role died of is not put in force again, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.api.base import Object
from meshd.config.admission import admit
from meshd.config.store import Store
from meshd.model.workload import Workload
from meshd.node.in_work import InWork


def service(name: str, port: int = 80) -> Object:
    spec = {"ports": [{"port": port}], "selector": {"app": "x"}}
    meta = {"name": name, "namespace": "shop"}
    return admit({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})


def remote(name: str, node: str = "n", **labels: str) -> Workload:
    return Workload(
        uid=f"shop.{name}", name=name, namespace="shop", netns="", node=node, labels=labels
    )


class Role:
    """A process of it; the next one begins with what this one left on disk."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "config.d", directory)
        self.work = InWork(directory / "attempts.json", self.store)
        self.elsewhere: tuple[Workload, ...] = ()

    @property
    def names(self) -> set[str]:
        return {key.name for key in self.store.objects}

    def hear(self, *told: Workload) -> set[str]:
        self.elsewhere = self.work.elsewhere(told, self.elsewhere, starting=False)
        return {one.name for one in self.elsewhere}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "config.d").mkdir()
    role = Role(tmp_path)
    role.store.put([service("good")])
    role.work.ended()
    return tmp_path


def test_an_object_that_kills_is_left_out_at_the_fourth_start_and_stays_on_disk(
    directory: Path,
) -> None:
    Role(directory).store.put([service("killer")])
    for _ in range(2):
        assert Role(directory).names == {"good", "killer"}
    role = Role(directory)
    assert role.names == {"good"}
    (problem,) = role.work.problems
    assert problem.startswith("Service shop/killer is left out")
    assert "killer" in (directory / "applied.json").read_text()
    role.store.put([service("killer", port=81)])
    role.work.ended()
    again = Role(directory)
    assert again.names == {"good", "killer"}
    assert not again.work.problems


def test_an_object_that_kills_can_be_deleted(directory: Path) -> None:
    Role(directory).store.put([service("killer")])
    for _ in range(2):
        Role(directory)
    role = Role(directory)
    role.store.delete([service("killer").key])
    assert "killer" not in (directory / "applied.json").read_text()
    assert not role.work.problems


def test_a_workload_of_another_node_that_kills_is_left_out_whatever_else_it_says(
    directory: Path,
) -> None:
    for number in range(3):
        role = Role(directory)
        assert role.hear(remote("good")) == {"good"}
        role.work.attempts.done()
        assert role.hear(remote("good"), remote("killer", v=str(number))) == {"good", "killer"}
    role = Role(directory)
    assert role.hear(remote("good"), remote("killer", v="9")) == {"good"}
    assert role.hear(remote("killer", node="other")) == {"killer"}
    (problem,) = role.work.problems
    assert problem.startswith("workload n/shop.killer is left out")
