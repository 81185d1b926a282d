"""Hosts that boot, with meshd installed as a package installs it."""

from __future__ import annotations

import compileall
import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

from tests.host.machine import Machine
from tests.host.node import Node
from tests.host.tree import CHECKOUT, base_tree
from tests.host.wires import Wires


@pytest.fixture(scope="session")
def wires() -> Iterator[Wires]:
    made = Wires(f"mt{os.getpid()}")
    made.create()
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def make_machine(wires: Wires) -> Iterator[Callable[[str], Machine]]:
    """Makes hosts that are installed but not booted yet; they end with the session."""
    # Hosts see the checkout and write nothing there: each process would compile it anew.
    compileall.compile_dir(CHECKOUT / "meshd", quiet=2)
    with contextlib.ExitStack() as stack:
        count = 0

        def make(name: str) -> Machine:
            nonlocal count
            count += 1
            made = Machine(name, count, base_tree(), wires)
            stack.callback(made.close)
            made.install()
            return made

        yield make


@pytest.fixture(scope="session")
def node(make_machine: Callable[[str], Machine]) -> Node:
    """A host with pods, shared by all modules: leave it as you found it."""
    made = Node(make_machine("one"))
    made.boot()
    return made


@pytest.fixture
def well(node: Node) -> Node:
    """The same, and it has recovered from what the test before did to it."""
    node.get_well()
    return node
