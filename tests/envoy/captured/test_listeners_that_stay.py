"""A proxy counts no listener as replaced, whichever object is added, changed or taken away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest
import yaml

from meshd.proxy.admin import Admin
from tests.envoy.captured.place import Place
from tests.unit.compile.test_lasting import BASE, CHANGES, WORKLOADS, Objects, parsed

COUNTED = ("listener_modified", "listener_in_place_updated", "listener_create_failure")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Place(tmp_path_factory.mktemp("stay")) as made:
        yield made


def text(objects: Objects) -> str:
    """All services have addresses, so that their connections have chains."""
    for one in objects.values():
        if one["kind"] == "Service":
            number = sum(one["metadata"]["name"].encode()) % 250
            one["spec"].setdefault("clusterIP", f"198.19.0.{number}")
    return yaml.safe_dump_all(objects.values())


def load(place: Place, objects: Objects) -> None:
    """All workloads are there; the gateway's is served, in the place's namespace."""
    workloads = [msgspec.structs.replace(one, netns=place.netns) for one in WORKLOADS]
    place.load(text(objects), *workloads, serving=["default.edge-1"])


def counted(place: Place) -> dict[str, int]:
    admin = Admin(place.admin_socket)
    found = asyncio.run(admin.stats(f"^listener_manager.({'|'.join(COUNTED)})$"))
    return {name: found.get(f"listener_manager.{name}", 0) for name in COUNTED}


def test_all_changes_of_listeners_are_made_in_place(place: Place) -> None:
    base = parsed(BASE)
    load(place, base)
    for change, objects in CHANGES.items():
        for step in (objects, base):
            load(place, step)
            found = counted(place)
            replaced = found["listener_modified"] - found["listener_in_place_updated"]
            assert replaced == 0, f"{change}: {found}"
    assert counted(place)["listener_in_place_updated"] > 0, "some change reached a listener"
    assert counted(place)["listener_create_failure"] == 0


def test_the_counters_tell_of_a_listener_that_is_replaced(place: Place) -> None:
    base = parsed(BASE)
    load(place, base)
    before = counted(place)
    workloads = [
        msgspec.structs.replace(
            one, netns=place.netns, annotations={"meshd.io/mutual-tls-timeout": "7s"}
        )
        for one in WORKLOADS
    ]
    place.load(text(base), *workloads, serving=["default.edge-1"])
    after = counted(place)
    assert after["listener_modified"] - after["listener_in_place_updated"] > (
        before["listener_modified"] - before["listener_in_place_updated"]
    )
