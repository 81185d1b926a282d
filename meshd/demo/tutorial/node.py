"""The demo's own node: its home, its settings, its start and its end."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import meshd
from meshd.base.errors import SystemRefusedError
from meshd.demo.tutorial import machine
from meshd.pods import kernel
from meshd.pods.files import Home
from meshd.settings import Paths

DIRECTORY: Final = Path(meshd.__file__).parent.parent
"""Where the commands run: the manifests' paths are below it."""
SERVICES: Final = "198.19.0.0/16"
_STOP: Final = 20.0
"""Seconds for the node to end by itself."""
_ANSWER: Final = 2.0
_RUN: Final = Path("/run")

_SETTINGS: Final = """\
node: demo
mesh:
  service_cidr: {services}
  dns_port: {dns_port}
proxy:
  short_way: false   # pods of one node speak TLS then, which can be looked at
telemetry:
  port: 0            # any that is free
"""


def free_networks(used: Iterable[ipaddress.IPv4Network]) -> list[ipaddress.IPv4Network]:
    """Return the networks of 198.18.0.0/16 in which this machine has no address. Pure."""
    # A network as wide as the whole is another testbed's, whose pods are at its beginning.
    taken = [network for network in used if network.prefixlen > 16]
    upper_half = ipaddress.IPv4Network("198.18.128.0/17")
    return [
        network
        for network in upper_half.subnets(new_prefix=24)
        if not any(other.overlaps(network) for other in taken)
    ]


def _choose_network() -> str:
    """Return a network for the pods. Raises SystemRefusedError.

    It is another one each time, so that two demos can start at the same moment.
    """
    if free := free_networks(_networks()):
        return str(secrets.choice(free))
    raise SystemRefusedError("no network is free in 198.18.128.0/17: end another testbed first")


def _networks() -> list[ipaddress.IPv4Network]:
    done = subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True)
    return [
        ipaddress.IPv4Network((address["local"], address["prefixlen"]), strict=False)
        for link in json.loads(done.stdout)
        for address in link.get("addr_info", [])
    ]


def free_port() -> int:
    """Return a free UDP port of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Node:
    """The node. After ``remove`` nothing of it is left, however far it came."""

    def __init__(self) -> None:
        self.network = _choose_network()
        self.home = Path(tempfile.mkdtemp(prefix="meshd-demo-", dir=_RUN))
        self.home.chmod(0o755)
        self.settings = _SETTINGS.format(services=SERVICES, dns_port=free_port())
        self._paths = Paths.from_environment({"MESHD_HOME": str(self.home)})
        self._paths.etc.mkdir()
        self._paths.settings.write_text(self.settings, encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of the node and of its clients."""
        return {**os.environ, "PATH": self.search_path(), "MESHD_HOME": str(self.home)}

    @staticmethod
    def search_path() -> str:
        """Return the path of commands: beside this Python first."""
        return f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"

    @property
    def log(self) -> Path:
        return self.home / "meshd.log"

    @property
    def testbed(self) -> Home:
        return Home(self._paths)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def runs(self) -> bool:
        """Return whether the process that was started has not ended; one that has is reaped."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "meshd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=DIRECTORY,
                start_new_session=True,
            )

    def page(self) -> str:
        """Return the address of the web page; empty while there is none."""
        try:
            port = self._paths.telemetry_port.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""
        return f"http://127.0.0.1:{port}/" if port else ""

    def is_ready(self) -> bool:
        """Raises SystemRefusedError when it has ended instead."""
        if not self.runs:
            raise SystemRefusedError(f"meshd has ended; its last output: {self.last_words()}")
        if not (page := self.page()):
            return False
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(  # noqa: S310 - our own
                f"{page}healthz/ready", timeout=_ANSWER
            ) as answer,
        ):
            return answer.status == 200
        return False

    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "none")

    def namespaces(self) -> frozenset[int]:
        """Return the namespaces of the pods and of the switch between them."""
        testbed = self.testbed
        switch = testbed.directory / "switch"
        own = {switch.stat().st_ino} if switch.exists() else set[int]()
        return machine.namespaces([testbed.namespaces, self._paths.netns]) | own

    def processes(self) -> list[int]:
        """Return the processes that the demo has started.

        A reader may have exported the node's home in another terminal, as the demo suggests:
        processes there are not the demo's.
        """
        own = machine.descendants(os.getpid())
        return [pid for pid in machine.processes_of(self.home) if pid in own]

    def remove(self) -> None:
        """Take all of it away, whatever state it is in. Doing it again is no error."""
        if not self.home.exists():
            return
        if self.testbed.lock.exists() or self.testbed.directory.exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    ["meshctl", "testbed", "down"],
                    env=self.environment,
                    capture_output=True,
                    check=False,
                    timeout=90,
                )
        self._stop()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for point in kernel.mounts_below(self.home):
            kernel.unmount(point)
        shutil.rmtree(self.home, ignore_errors=True)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP)
        self._process.kill()
        self._process.wait()

    def wait_gone(self) -> bool:
        """Return whether the node has ended in time."""
        end = time.monotonic() + _STOP
        while self.runs and time.monotonic() < end:
            time.sleep(0.05)
        return not self.runs
