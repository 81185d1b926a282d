"""What an agent tells its server, and a server other nodes, of a service of the host."""

from __future__ import annotations

import pytest

from meshd.base import own_addresses
from meshd.model.workload import HostService, Workload
from meshd.node.mesh import Mesh
from meshd.roles.mesh import assembled
from meshd.settings import Paths, Settings


class Host:
    """Has these addresses."""

    now: tuple[str, ...] = ("198.18.0.1",)

    def addresses(self) -> tuple[str, ...]:
        return self.now


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(own_addresses, "preferred", made.addresses)
    monkeypatch.setattr(own_addresses, "every", made.addresses)
    return made


def service(*own: str, asked: bool | None = None) -> Workload:
    host = HostService(cgroup="s/web", address_asked=asked)
    return Workload(
        uid="mesh.web", name="web", namespace="mesh", netns="", addresses=own, host=host
    )


def told(mesh: Mesh) -> tuple[str, ...]:
    (one,) = mesh.roster("one")
    return one.addresses


def moves(mesh: Mesh, host: Host, *to: str) -> None:
    host.now = to
    mesh.own.look()


def test_others_are_told_of_a_new_address_and_no_more_of_the_old_one(
    host: Host, paths: Paths
) -> None:
    mesh = assembled(Settings(), paths)
    mesh.reconciler.register((service(asked=False),))
    assert told(mesh) == ("198.18.0.1",)
    moves(mesh, host, "198.18.0.2", "fd00:198::2")
    assert told(mesh) == ("198.18.0.2", "fd00:198::2")
    assert mesh.reconciler.inside()["mesh.web"].addresses == (
        "198.18.0.2",
        "fd00:198::2",
    )
    assert told(assembled(Settings(), paths)) == ("198.18.0.2", "fd00:198::2")


def test_an_address_that_was_asked_for_is_told_whatever_becomes_of_the_hosts(
    host: Host, paths: Paths
) -> None:
    mesh = assembled(Settings(), paths)
    mesh.reconciler.register((service("198.51.100.1", asked=True),))
    moves(mesh, host, "198.18.0.2")
    assert told(mesh) == told(assembled(Settings(), paths)) == ("198.51.100.1",)


def test_what_an_older_meshd_has_seen_is_forgotten_for_good(host: Host, paths: Paths) -> None:
    assembled(Settings(), paths).reconciler.register((service("198.18.0.1"),))
    assert told(assembled(Settings(), paths)) == ("198.18.0.1",)
    host.now = ("198.18.0.2",)
    mesh = assembled(Settings(), paths)
    assert told(mesh) == ("198.18.0.2",)
    assert not mesh.all_problems()


def test_what_an_older_meshd_has_seen_and_is_gone_is_doubted(host: Host, paths: Paths) -> None:
    assembled(Settings(), paths).reconciler.register((service("198.18.0.9"),))
    mesh = assembled(Settings(), paths)
    assert told(mesh) == ("198.18.0.9",)
    (problem,) = mesh.all_problems()
    assert problem.startswith("workload mesh/web: its address 198.18.0.9 is none of this host's")
