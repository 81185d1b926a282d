"""A node with pods: what the tests of it have in common."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

from meshd.pods.client import Client, command_inside, select
from meshd.pods.files import Home
from tests.node.daemon import DEFAULTS, Daemon
from tests.node.manifests import Write
from tests.node.network import free_network
from tests.node.process import Process, finish, run
from tests.ports import free_port
from tests.waiting import PATIENCE


class Node(Daemon):
    """And its testbed in a network of its own."""

    write = Write
    finish = staticmethod(finish)

    def up(self, text: str) -> None:
        images = str(self.images / "images.yaml")
        done = self.meshctl(
            "testbed", "up", "-f", "-", "--images", images, "--cidr", self.cidr, text=text
        )
        assert done.status == 0, done.errors + self.log[-3000:]

    def pod(self, name: str) -> Any:
        """The state of ``NAME`` in namespace mesh, or ``NAME.NAMESPACE``."""
        client = Client(Home(self.paths))
        name, _, namespace = name.partition(".")
        return select(asyncio.run(client.pods()).pods, f"deploy/{name}", namespace or "mesh")

    def command(self, pod: str, *command: str) -> tuple[list[str], dict[str, str]]:
        argv, environment = command_inside(self.pod(pod), "", command)
        return list(argv), {"PATH": os.environ["PATH"], **environment}

    def exec(
        self, pod: str, *command: str, timeout: float = 2 * PATIENCE, text: str = ""
    ) -> Process:
        argv, environment = self.command(pod, *command)
        return run(argv, environment, text, timeout)

    def begin(self, pod: str, *command: str) -> subprocess.Popen[str]:
        argv, environment = self.command(pod, *command)
        return subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def asking(self, pod: str, how: str, target: str, *counts: int) -> subprocess.Popen[str]:
        numbers = [str(count) for count in counts]
        return self.begin(pod, sys.executable, "/srv/app/ask.py", how, target, *numbers)

    def answers(self, pod: str, how: str, target: str, *counts: int) -> list[dict[str, Any]]:
        return finish(self.asking(pod, how, target, *counts))

    def curl(self, pod: str, *arguments: str) -> Process:
        return self.exec(pod, "curl", "-sS", "--max-time", "20", *arguments)

    def status_of(self, pod: str, url: str, *arguments: str) -> str:
        """The status code that came back; 000: none did."""
        done = self.curl(pod, "-o", "/dev/null", "-w", "%{http_code}", *arguments, url)
        return done.output[-3:]


def make_node(**settings: dict[str, Any]) -> Node:
    """Not started yet. Who makes it closes it."""
    mesh = {"dns_port": free_port()} | settings.pop("mesh", {})
    return Node({"mesh": DEFAULTS["mesh"] | mesh} | settings, free_network())
