"""The demo from its beginning to its end, including the cleanup after a failure."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from meshd.base.errors import MeshdError, SystemRefusedError
from meshd.demo.tutorial import (
    crash,
    encryption,
    ending,
    enrollment,
    faults,
    ingress,
    resilience,
    routing,
)
from meshd.demo.tutorial.machine import Machine
from meshd.demo.tutorial.node import DIRECTORY, Node
from meshd.demo.tutorial.terminal import Terminal
from meshd.demo.tutorial.tutorial import Tutorial
from meshd.pods import kernel

_PROGRAMS: Final = {
    "meshctl": "meshd itself",
    "curl": "the package curl",
    "ip": "the package iproute2",
    "nsenter": "the package util-linux",
    "openssl": "the package openssl",
    "tcpdump": "the package tcpdump",
}
_INTERRUPTED: Final = 130
"""Exit status of what Ctrl-C ended."""

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Step = tuple[str, Callable[[Tutorial], None]]


def steps(node: Node, before: Machine) -> tuple[Step, ...]:
    return (
        (
            "(a) workloads join the mesh by their namespace's label",
            functools.partial(enrollment.start, network=node.network),
        ),
        ("(b) a Gateway lets requests in", ingress.let_in),
        ("(c) versions as subsets; everything to version 1", routing.to_version_1),
        ("(d) john sees version 2, mary version 3", routing.by_user),
        ("(e) 90/10, then 50/50", routing.by_weight),
        ("(f) faults for one user", faults.inject),
        ("(g) time-outs, retries, a circuit breaker", resilience.endure),
        (
            "(h) nothing but TLS on the wire, and each side knows the other",
            functools.partial(encryption.prove, home=node.home),
        ),
        ("(i) a namespace outside the mesh: PERMISSIVE, then STRICT", encryption.require),
        ("(j) kill -9 of a proxy while requests run", crash.kill),
        (
            "(k) everything ends, and nothing is left",
            functools.partial(ending.clean_up, node=node, before=before),
        ),
    )


def main(*, once: bool, limit: float) -> int:
    """Run the demo and return its exit status.

    ``once``: it does not stay, and all steps together may take ``limit`` seconds.
    """
    terminal = Terminal()
    for number in _ENDING:
        signal.signal(number, _interrupt)
    try:
        node = _prepare()
    except MeshdError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    kernel.become_subreaper()  # so that all that is started here stays below this process
    before = Machine.look()
    deadline = time.monotonic() + limit if once else float("inf")
    tutorial = Tutorial(terminal, node.environment, DIRECTORY, deadline)
    try:
        return _walk(tutorial, node, before, once=once)
    except KeyboardInterrupt:
        terminal.say("interrupted")
        return _INTERRUPTED
    finally:
        _remove(terminal, node)


def _interrupt(*_: Any) -> None:
    """End the demo at the first signal; further ones do not interrupt the cleanup."""
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _prepare() -> Node:
    """Raises SystemRefusedError."""
    if os.geteuid() != 0:
        raise SystemRefusedError("network namespaces need root; run it as root")
    path = Node.search_path()
    for program, package in _PROGRAMS.items():
        if shutil.which(program, path=path) is None:
            raise SystemRefusedError(f"{program} is not on PATH; install {package}")
    return Node()


def _walk(tutorial: Tutorial, node: Node, before: Machine, *, once: bool) -> int:
    began = time.monotonic()
    if _is_done(tutorial, "the node", functools.partial(_start, node=node)):
        *middle, last = steps(node, before)
        for number, (title, step) in enumerate(middle):
            if not _is_done(tutorial, title, step) and number == 0:
                break  # nothing of the rest can be so
        else:
            if not once:
                _stay(tutorial, node)
        _is_done(tutorial, *last)
    seconds = time.monotonic() - began
    return _conclude(tutorial, seconds)


def _is_done(tutorial: Tutorial, title: str, step: Callable[[Tutorial], None]) -> bool:
    """Return whether a step was completed."""
    tutorial.begin(title)
    try:
        step(tutorial)
    except MeshdError as error:
        tutorial.expect(str(error), False)
        return False
    return True


def _start(tutorial: Tutorial, node: Node) -> None:
    terminal = tutorial.terminal
    terminal.command(f"cd {DIRECTORY}")
    terminal.command(f"export MESHD_HOME={node.home} PATH={Node.search_path().split(':')[0]}:$PATH")
    tutorial.done("cat $MESHD_HOME/etc/meshd.yaml")
    terminal.command("python -m meshd >$MESHD_HOME/meshd.log 2>&1 &")
    node.start()
    ready = tutorial.until(node.is_ready, "meshd starts")
    if not tutorial.expect("meshd is ready: its roles and its proxies run", ready):
        raise SystemRefusedError(f"its last output: {node.last_words()}")
    terminal.say(f"its web page: {node.page()}")


def _stay(tutorial: Tutorial, node: Node) -> None:
    """Stay until Ctrl-C."""
    tutorial.begin("the tutorial is over; the node stays")
    tutorial.ask(
        f"meshctl apply -f {enrollment.SAMPLE}/networking/virtual-service-reviews-test.yaml"
    )
    say = tutorial.terminal.say
    say(f"the mesh:        {node.page()}")
    say(f"the bookstore:   http://{tutorial.environment['GATEWAY']}/productpage")
    say("                 sign in as john or as mary to see other stars, with any password")
    say(f"in a terminal:   export MESHD_HOME={node.home}; meshctl status")
    say("Ctrl-C ends it")
    try:
        while node.runs:
            time.sleep(0.2)
    except KeyboardInterrupt:
        tutorial.terminal.say("")
    else:
        tutorial.expect("meshd runs", False, "ended by itself")


def _conclude(tutorial: Tutorial, seconds: float) -> int:
    terminal = tutorial.terminal
    terminal.title(f"{seconds:.0f} s")
    for failure in tutorial.failures:
        terminal.verdict(False, failure)
    if not tutorial.failures:
        terminal.verdict(True, "every step gave what it must")
    return 1 if tutorial.failures else 0


def _remove(terminal: Terminal, node: Node) -> None:
    """Remove what a failed step, or an interruption, has left."""
    _ignore_signals()
    if node.home.exists():
        with terminal.waiting("cleaning up"):
            node.remove()
