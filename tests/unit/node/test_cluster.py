"""What a cluster's API server has, put in force and kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd.api.base import Key, Object
from meshd.api.kubernetes.types import Service
from meshd.base.errors import InvalidInputError
from meshd.config import admission
from meshd.config.merging import Followed
from meshd.config.withheld import POLICIES
from meshd.model.listed import ListedEndpoint
from meshd.node.cluster import Cluster, State
from meshd.wire.cluster import Objects, Slices, Trouble

WEB = Key("Service", "shop", "web")


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "shop"}
    ports = [{"name": "http", "port": 80}]
    given = {"clusterIP": "198.19.0.7", "selector": {"app": name}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": given}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def endpoint(address: str, *, ready: bool = True, service: str = "web") -> ListedEndpoint:
    return ListedEndpoint(
        namespace="shop", service=service, address=address, ports={"http": 8080}, ready=ready
    )


class World:
    def __init__(self, path: Path) -> None:
        self.path = path / "cluster-state"
        self.objects: Mapping[Key, Object] = {}
        self.found = Followed({})
        self.listed: tuple[ListedEndpoint, ...] = ()
        self.begin()

    def begin(self, *, enabled: bool = True) -> None:
        self.cluster = Cluster(self.path, self._surround, self._list, enabled=enabled)

    def _surround(self, found: Followed) -> None:
        self.objects, self.found = found.objects, found

    def _list(self, listed: tuple[ListedEndpoint, ...]) -> None:
        self.listed = listed

    def keep(self) -> None:
        """As the task does that writes."""
        self.path.write_bytes(self.cluster.dumping()())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_services_wait_for_all_slices(world: World) -> None:
    world.cluster.take(Objects("Namespace", (namespace("shop"),), whole=True))
    world.cluster.take(Objects("Service", (service(),), whole=True))
    assert world.objects.keys() == {Key("Namespace", "", "shop")}
    world.cluster.take(Slices({}, whole=True))
    assert WEB in world.objects


def test_a_service_has_the_endpoints_of_its_slices_whatever_it_selects(world: World) -> None:
    world.cluster.take(Slices({"shop/web-1": (endpoint("198.18.0.5"),)}, whole=True))
    world.cluster.take(Objects("Service", (service(selector={}),), whole=True))
    found = world.objects[WEB]
    assert isinstance(found, Service)
    assert found.spec.selector == {"kubernetes.io/service-name": "web"}
    assert world.listed == (endpoint("198.18.0.5"),)


def test_what_is_whole_replaces_what_was_and_changes_are_added(world: World) -> None:
    one, other = endpoint("198.18.0.5"), endpoint("198.18.0.6")
    world.cluster.take(Slices({"shop/a": (one,), "shop/b": (other,)}, whole=True))
    world.cluster.take(Slices({}, ("shop/a",)))
    assert world.listed == (other,)
    world.cluster.take(Slices({"shop/a": (one,)}, whole=True))
    assert world.listed == (one,)
    world.cluster.take(Objects("Service", (service(), service("db")), whole=True))
    world.cluster.take(Objects("Service", (), ("shop/web",)))
    assert world.objects.keys() == {Key("Service", "shop", "db")}


def test_an_address_of_several_slices_is_one_endpoint(world: World) -> None:
    ready, not_ready = endpoint("198.18.0.5"), endpoint("198.18.0.5", ready=False)
    for both in ((ready, not_ready), (not_ready, ready)):
        slices = {f"shop/{number}": (one,) for number, one in enumerate(both)}
        world.cluster.take(Slices(slices, whole=True))
        assert world.listed == (ready,)


def test_of_two_families_the_first_counts(world: World) -> None:
    both = {"shop/4": (endpoint("198.18.0.5"),), "shop/6": (endpoint("fd00:198::5"),)}
    alone = {"shop/db": (endpoint("fd00:198::6", service="db"),)}
    world.cluster.take(Slices(both | alone, whole=True))
    assert [one.address for one in world.listed] == ["fd00:198::6", "198.18.0.5"]


def test_an_object_that_cannot_be_used_costs_itself_and_is_named(world: World) -> None:
    world.cluster.take(Slices({}, whole=True))
    broken = service("broken", ports=[{"port": 99999}])
    world.cluster.take(Objects("Service", (broken, service()), whole=True))
    assert world.objects.keys() == {WEB}
    assert "Service shop/broken" in world.cluster.problem
    world.cluster.take(Objects("Service", (), ("shop/broken",)))
    assert world.cluster.problem == ""


def test_what_is_not_followed_is_told_until_it_is(world: World) -> None:
    world.cluster.take(Trouble(("pods is forbidden",)))
    assert "pods is forbidden" in world.cluster.problem
    world.cluster.take(Trouble(()))
    assert world.cluster.problem == ""


def test_other_kinds_are_refused(world: World) -> None:
    with pytest.raises(InvalidInputError, match="Secret is not taken"):
        world.cluster.take(Objects("Secret"))


def test_all_of_it_is_there_again_at_the_next_start(world: World) -> None:
    world.cluster.take(Slices({"shop/a": (endpoint("198.18.0.5"),)}, whole=True))
    world.cluster.take(Objects("Service", (service(),), whole=True))
    world.keep()
    before = world.objects, world.listed
    world.objects, world.listed = {}, ()
    world.begin()
    assert (world.objects, world.listed) == before


def test_nothing_of_a_cluster_that_is_not_followed_any_more_is_in_force(world: World) -> None:
    world.cluster.take(Objects("Namespace", (namespace("shop"),), whole=True))
    world.keep()
    world.begin(enabled=False)
    assert world.objects == {}


def test_a_damaged_record_is_put_aside(world: World) -> None:
    world.path.write_bytes(b"damaged")
    world.begin()
    assert world.objects == {}
    assert list(world.path.parent.glob("cluster-state.damaged-*"))


def test_a_message_that_says_nothing_new_changes_nothing() -> None:
    state = State().taking(Slices({"shop/a": (endpoint("198.18.0.5"),)}, whole=True))
    assert state.taking(Slices({}, ("shop/none",))) == state
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State) == state


def istio(kind: str, name: str, group: str = "networking.istio.io", **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "shop"}
    return {"apiVersion": f"{group}/v1", "kind": kind, "metadata": meta, "spec": spec}


def test_istios_kinds_are_taken(world: World) -> None:
    route = {"route": [{"destination": {"host": "web"}}]}
    value = istio("VirtualService", "web", hosts=["web"], http=[route])
    world.cluster.take(Objects("VirtualService", (value,), whole=True))
    assert world.objects.keys() == {Key("VirtualService", "shop", "web")}


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_a_policy_that_cannot_be_used_is_closed(world: World, kind: str) -> None:
    value = istio(kind, "all", "security.istio.io", selector=7)
    world.cluster.take(Objects(kind, (value,), whole=True))
    (found,) = world.objects.values()
    assert isinstance(found, POLICIES[kind])
    assert f"{kind} shop/all of the API server" in world.cluster.problem
    world.cluster.take(Objects(kind, (), ("shop/all",)))
    assert world.objects == {}


def test_hosts_of_what_cannot_be_used_are_closed(world: World) -> None:
    value = istio("DestinationRule", "web", host="web.shop.svc.cluster.local", trafficPolicy=7)
    world.cluster.take(Objects("DestinationRule", (value,), whole=True))
    (closed,) = world.found.closed
    assert closed.metadata.name == "web"
    assert world.objects == {}


def test_only_what_has_changed_is_judged_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cluster.take(Slices({}, whole=True))
    world.cluster.take(Objects("Service", (service(), service("db")), whole=True))
    seen: list[Any] = []
    admit = admission.admit

    def noted(value: Any) -> Object:
        seen.append(value)
        return admit(value)

    monkeypatch.setattr(admission, "admit", noted)
    before = world.objects[WEB]
    world.cluster.take(Slices({"shop/a": (endpoint("198.18.0.5"),)}))
    world.cluster.take(Objects("Service", (service("db", clusterIP="198.19.0.9"),)))
    assert [one["metadata"]["name"] for one in seen] == ["db"]
    assert world.objects[WEB] is before


def test_what_does_not_say_what_it_is_about_counts_as_lost(world: World) -> None:
    value = istio("DestinationRule", "web", host=7)
    world.cluster.take(Objects("DestinationRule", (value,), whole=True))
    assert world.found.lost == ("DestinationRule shop/web of the API server",)
