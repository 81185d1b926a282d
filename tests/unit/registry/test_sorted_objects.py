"""Objects that are followed from one configuration to the next are sorted as if they were new."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import Object
from meshd.api.read import read_objects
from meshd.registry.sorted_objects import SortedObjects

_SPECS = {
    "v1 Service": "{ports: [{port: 80}]}",
    "v1 Namespace": "{}",
    "networking.istio.io/v1 ServiceEntry": "{hosts: [a.test], ports: [{number: 80, name: http}]}",
    "networking.istio.io/v1 WorkloadEntry": "{address: 10.0.0.1}",
    "networking.istio.io/v1 VirtualService": (
        "{hosts: [a.test], http: [{route: [{destination: {host: a.test}}]}]}"
    ),
    "networking.istio.io/v1 DestinationRule": "{host: a.test}",
    "security.istio.io/v1 PeerAuthentication": "{mtls: {mode: STRICT}}",
}
_OBJECTS: tuple[Any, ...] = tuple(
    read_objects(
        f"apiVersion: {kind.split()[0]}\nkind: {kind.split()[1]}\n"
        f"metadata: {{name: a, namespace: n}}\nspec: {spec}\n",
        "test.yaml",
    )[0].object
    for kind, spec in _SPECS.items()
)


def made(number: int, name: str, time: str) -> Object:
    one = _OBJECTS[number]
    meta = msgspec.structs.replace(one.metadata, name=name, creation_timestamp=time or None)
    return msgspec.structs.replace(one, metadata=meta)


_names = st.sampled_from("abc")
_times = st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
_configurations = st.lists(
    st.builds(made, st.integers(0, len(_OBJECTS) - 1), _names, _times),
    max_size=12,
    unique_by=lambda one: one.key,
)


@given(st.lists(_configurations, max_size=4), st.data())
def test_objects_are_sorted_alike_whatever_came_before(
    configurations: list[list[Object]], data: st.DataObject
) -> None:
    known = SortedObjects.of(())
    before: list[Object] = []
    for configuration in configurations:
        kept = [one for one in before if data.draw(st.booleans())]
        keys = {one.key for one in kept}
        before = [*kept, *(one for one in configuration if one.key not in keys)]
        known = SortedObjects.of(before, known)
        assert known == SortedObjects.of(before)


def test_lists_without_a_change_stay_the_very_lists() -> None:
    objects = [made(number, name, "") for number in range(len(_OBJECTS)) for name in "abc"]
    before = SortedObjects.of(objects)
    changed = made(4, "b", "2026-01-01T00:00:00Z")
    place = next(index for index, one in enumerate(objects) if one.key == changed.key)
    after = SortedObjects.of([*objects[:place], changed, *objects[place + 1 :]], before)
    assert [one.metadata.name for one in after.virtual_services] == ["a", "c", "b"]
    others = {field.name for field in dataclasses.fields(SortedObjects)} - {
        "all",
        "virtual_services",
    }
    assert all(getattr(after, name) is getattr(before, name) for name in others)
