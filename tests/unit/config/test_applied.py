"""What is read of the file of applied objects is what was written, whatever the changes were."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.api.base import Key, Object
from meshd.api.read import read_objects
from meshd.base.json_values import JsonObject
from meshd.config import applied
from meshd.config.applied import Applied, AppliedFile
from meshd.config.unusable import Unusable

KINDS = {
    "Service": "spec: {ports: [{port: %d}]}",
    "PeerAuthentication": "spec: {selector: {matchLabels: {app: v%d}}}",
    "DestinationRule": "spec: {host: a%d.example.com}",
}
VERSIONS = {"Service": "v1", "PeerAuthentication": "security.istio.io/v1"}


def made(kind: str, name: str, number: int) -> Object:
    version = VERSIONS.get(kind, "networking.istio.io/v1")
    head = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n"
    (read,) = read_objects(head + KINDS[kind] % number, "-")
    return read.object


NAMES = st.sampled_from("abc")
NUMBERS = st.integers(1, 3)
OBJECTS = st.builds(made, st.sampled_from(sorted(KINDS)), NAMES, NUMBERS)
ADDRESSES = st.dictionaries(NAMES, st.tuples(st.sampled_from(("198.19.0.1", "fd00::1"))))


def unusable(name: str, number: int) -> tuple[Key, Unusable]:
    value: JsonObject = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"unknown": number},
    }
    return Key("PeerAuthentication", "shop", name), Unusable(value, "it is not known")


UNUSABLE = st.dictionaries(NAMES, NUMBERS).map(
    lambda found: dict(unusable(name, number) for name, number in found.items())
)
CHANGES = st.lists(st.tuples(st.lists(OBJECTS), UNUSABLE, ADDRESSES, st.booleans()), max_size=8)


@settings(max_examples=60, deadline=None)
@given(CHANGES)
def test_changes_are_read_as_they_were_written(
    changes: list[tuple[list[Object], dict[Key, Unusable], dict[str, tuple[str, ...]], bool]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "applied.json"
        file = AppliedFile(path)
        for number, (objects, of_others, addresses, is_lost) in enumerate(changes):
            replaced = {key: one.policy for key, one in of_others.items()}
            usable = {one.key: one for one in objects}
            file.replace(
                Applied(
                    revision=number,
                    objects={**usable, **{key: one for key, one in replaced.items() if one}},
                    unusable=of_others,
                    lost="/damaged-1" if is_lost else "",
                )
            )
            file.replace_addresses(addresses)
            found, _ = applied.load(path)
            assert without_reasons(found) == without_reasons(file.content)


def without_reasons(found: Applied) -> object:
    """Return the content without why objects are unusable, which reading finds out anew."""
    values = {key: one.value for key, one in found.unusable.items()}
    return dataclasses.replace(found, unusable={}), values
