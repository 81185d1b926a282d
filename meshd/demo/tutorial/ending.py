"""Step (k): everything ends, and nothing is left of it."""

from __future__ import annotations

import time
from typing import Final

from meshd.demo.tutorial import machine
from meshd.demo.tutorial.machine import Machine
from meshd.demo.tutorial.node import Node
from meshd.demo.tutorial.tutorial import Tutorial

_GONE: Final = 10.0
"""Seconds for the kernel to let go of what nobody holds any more."""


def clean_up(tutorial: Tutorial, node: Node, before: Machine) -> None:
    known = node.namespaces()
    testbed = node.testbed.directory
    answer = tutorial.run("meshctl testbed down", patience=90)
    tutorial.expect("the testbed ends", answer.status == 0, answer.output)
    began = time.monotonic()
    tutorial.done(f"kill {node.pid}")
    with tutorial.terminal.waiting("meshd ends"):
        gone = node.wait_gone()
    tutorial.expect(f"meshd ends in {time.monotonic() - began:.1f} s", gone)
    tutorial.done(f"rm -r {node.home}")

    def left() -> list[str]:
        return machine.left(node.home, testbed, known, before, node.processes())

    tutorial.until(lambda: not left(), "the kernel lets go", _GONE)
    tutorial.expect(
        f"nothing is left: no process, mount, link, rule or cgroup, and none of the"
        f" {len(known)} network namespaces",
        not (found := left()),
        "; ".join(found),
    )
