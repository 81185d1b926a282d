"""What would be in force after a change is given without what the change replaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.config.store import Store
from meshd.registry.snapshots import Given
from tests.unit import storing
from tests.unit.node.world import service


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "config.d").mkdir()
    store = Store(tmp_path / "config.d", tmp_path)
    storing.put(store, [service("killer"), service("other")])
    return store


def test_the_replacement_of_an_object_goes_with_it(store: Store) -> None:
    store.withhold(str)
    given = Given.of(store)
    key = service("killer").key
    assert {one.key for one in given.closed} == {key, service("other").key}
    left = given.with_objects({}, {key})
    assert {one.key for one in left.closed} == {service("other").key}


def test_nothing_is_lost_without_the_objects_that_are_given_up(store: Store) -> None:
    store.withhold(str, str)
    given = Given.of(store)
    first, second = service("killer").key, service("other").key
    assert given.with_objects({}, {first}).given_up
    assert given.with_objects({}, {first}).is_partly_lost
    assert not given.with_objects({}, {first, second}).is_partly_lost
    mended = {one.key: one for one in (service("killer"), service("other"))}
    assert not given.with_objects(mended, mended).is_partly_lost


def test_content_that_is_lost_stays_so_whatever_is_deleted(store: Store) -> None:
    key = service("killer").key
    store.follow({key: service("killer")}, lost=("a file of the server",))
    store.withhold(str, str)
    given = Given.of(store).with_objects({}, {key})
    assert given.lost == ("a file of the server",)
