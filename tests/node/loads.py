"""Requests that go on while something happens."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Generator

    from tests.node.node import Node

CLIENTS = 8
"""At a time; so many requests are in flight at most."""


@contextlib.contextmanager
def load(node: Node, target: str = "server:80") -> Generator[list[Any]]:
    """Requests within the block; how they went is in the list after it."""
    running: subprocess.Popen[str] = node.asking("alice", "load", target, CLIENTS)
    assert running.stdout
    assert running.stdout.readline() == "begun\n"
    went: list[Any] = []
    try:
        yield went
    except BaseException:
        running.kill()
        raise
    went.append(node.finish(running, ""))
