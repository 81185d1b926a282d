"""A way that cannot be made does not keep the others from being measured."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import pytest

from meshd.base.errors import NotReadyError
from tests.bench.__main__ import measured
from tests.bench.ground import Host
from tests.bench.ways import Way, Ways


def way(name: str) -> Way:
    return Way(Host(name, Path("/nowhere"), "198.18.0.2"), "198.18.0.3", {}, lambda: 0, lambda: 0)


class Node:
    """Says when it begins and ends."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def makes(self, name: str, stack: contextlib.ExitStack) -> Way:
        stack.callback(self._told.append, f"{name} ends")
        self._told.append(f"{name} begins")
        return way(name)

    def fails(self, name: str, stack: contextlib.ExitStack) -> Way:
        self.makes(name, stack)
        raise NotReadyError(f"{name} does not answer")


def test_a_way_that_cannot_be_made_is_named_and_leaves_nothing_behind() -> None:
    told: list[str] = []
    node = Node(told)
    makers = {
        "one": functools.partial(node.makes, "one"),
        "two": functools.partial(node.fails, "two"),
        "three": functools.partial(node.makes, "three"),
    }
    with Ways(way("direct")).with_all(makers) as ways:
        assert list(ways.made) == ["direct", "one", "three"]
        assert ways.missing == {"two": "NotReadyError: two does not answer"}
        assert told == ["one begins", "two begins", "two ends", "three begins"]
    assert told[4:] == ["three ends", "one ends"]


def test_a_fault_of_the_bench_itself_is_none_of_a_way() -> None:
    def breaks(_: contextlib.ExitStack) -> Way:
        raise KeyError("ports")

    with pytest.raises(KeyError), Ways(way("direct")).with_all({"one": breaks}):
        pass


def test_what_a_part_lacks_is_named_beside_what_it_has() -> None:
    found = measured({"load": lambda: {"throughput": 1, "missing": {"two nodes, meshd": "late"}}})
    assert found == {"throughput": 1, "failed": {"load, two nodes, meshd": "late"}}
