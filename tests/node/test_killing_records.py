"""A record of which processes die costs itself: the node comes back without it, and says so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.node.node import Node

_KILLED = """
import os, signal, sys
if sys.orig_argv[-1] == "mesh":
    from meshd.registry import snapshots
    take = snapshots.take
    def deadly(given, *arguments, **more):
        if any(one.key.name == "killer" for one in given.every):
            os.kill(os.getpid(), signal.SIGSEGV)
        return take(given, *arguments, **more)
    snapshots.take = deadly
"""
"""In place of a fault in a library that nobody knows of yet, which the object's replacement has,
too."""


@pytest.fixture
def mortal(make: Callable[..., Node]) -> Node:
    place = make()
    (place.home / "sitecustomize.py").write_text(_KILLED)
    path = filter(None, (str(place.home), os.environ.get("PYTHONPATH")))
    place.environment["PYTHONPATH"] = ":".join(path)
    place.start()
    return place


def test_a_node_comes_back_without_the_object_that_kills_it(mortal: Node) -> None:
    write = mortal.write
    mortal.apply(write.dump(write.namespace("mesh", enrolled=True), write.service("good")))
    done = mortal.meshctl("apply", "-f", "-", text=write.dump(write.service("killer")))
    said = "Service mesh/killer is left out"

    def is_told(text: str = said) -> bool:
        status = mortal.meshctl("status")
        return text in status.output + status.errors

    nothing = "Service mesh/killer is not in force, nor is its closed replacement"
    mortal.eventually(is_told, f"status names it: {done}")
    mortal.eventually(lambda: said in mortal.log, "the log names it")
    mortal.eventually(lambda: is_told(nothing), "status says what holds")
    mortal.eventually(mortal.is_well, "all else is in force")
    assert mortal.meshctl("get", "service", "good", "-n", "mesh").status == 0
    assert mortal.meshctl("delete", "service", "killer", "-n", "mesh").status == 0
    mortal.eventually(lambda: not is_told(), "it is forgotten")
