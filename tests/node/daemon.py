"""A whole meshd under a MESHD_HOME of its own; nothing of it is left when it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any

import yaml

from meshd import wire
from meshd.base.errors import MeshdError
from meshd.pods.network import host_link
from meshd.proxy.admin import Admin
from meshd.proxy.pool import Member
from meshd.settings import Paths
from meshd.wire import channel
from tests.node.leftovers import mounts_below, processes_of
from tests.node.process import Process, run
from tests.waiting import PATIENCE, Missing, eventually

APPS = Path(__file__).with_name("apps")
MESHCTL = Path(sys.executable).with_name("meshctl")
DEFAULTS = {
    # No resolver is there: nothing asks for names outside.
    "mesh": {"service_cidr": "198.19.0.0/16", "dns_upstreams": ["127.0.0.1:9"]},
    "telemetry": {"port": 0},
    "proxy": {"count": 2, "drain_time": "1s"},
    "capture": {"probe_interval": "1s"},
}
PROXIES = ("proxy-0", "proxy-1", "dns-0", "dns-1")
"""Those of a node with the usual settings."""
ROLES = ("capture", "identity", "mesh", "telemetry")
WARMING = "listeners_warming$|warming_clusters$"
"""Names of statistics."""


class Daemon:
    """meshd under a home of its own. ``cidr`` is the network of its pods."""

    start_command = (sys.executable, "-P", "-m", "meshd")
    eventually = staticmethod(eventually)

    def __init__(self, settings: dict[str, Any], cidr: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"mn{os.getpid()}-", dir="/run"))
        self.home.chmod(0o755)
        self.paths = Paths(self.home / "etc", self.home / "lib", self.home / "run")
        self.cidr = cidr
        self.settings = settings
        self.images = self.home / "apps"
        self.prefix: tuple[str, ...] = ()
        """Before its commands: where they are to run."""
        self.environment = {**os.environ, "MESHD_HOME": str(self.home)}
        self._supervisor: subprocess.Popen[bytes] | None = None
        shutil.copytree(APPS, self.images)
        self.images.chmod(0o755)
        image = {"directory": ".", "command": ["sleep", "infinity"]}
        text = yaml.safe_dump({"app": image | {"env": {"PYTHONDONTWRITEBYTECODE": "1"}}})
        (self.images / "images.yaml").write_text(text)
        self.write_settings()

    def write_settings(self, **changes: dict[str, Any]) -> None:
        merged = {
            key: DEFAULTS.get(key, {}) | self.settings.get(key, {})
            for key in DEFAULTS | self.settings
        }
        for key, value in changes.items():
            merged[key] = merged.get(key, {}) | value
        self.paths.config_directory.mkdir(parents=True, exist_ok=True)
        self.paths.etc.chmod(0o755)
        self.paths.settings.write_text(yaml.safe_dump(merged))

    # ---- the daemon

    @property
    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    @property
    def supervisor_pid(self) -> int:
        assert self._supervisor
        return self._supervisor.pid

    def launch(self) -> None:
        with (self.home / "log").open("ab") as log:
            self._supervisor = subprocess.Popen(
                [*self.prefix, sys.executable, "-P", "-m", "meshd"],
                env=self.environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        self.launch()
        try:
            eventually(self.is_well, "all roles and proxies run")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-3000:]}") from None

    def wait_supervisor(self) -> int:
        assert self._supervisor
        return self._supervisor.wait(PATIENCE)

    def close(self) -> None:
        down = self._testbed_down()
        if self._supervisor and self._supervisor.poll() is None:
            self._supervisor.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._supervisor.wait(PATIENCE)
        left = self._left_after_all()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._supervisor:
            self._supervisor.wait()
        for mounted in reversed(self.mounts()):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        subprocess.run(["ip", "link", "del", self._link], check=False, capture_output=True)
        shutil.rmtree(self.home, ignore_errors=True)
        assert not left, f"the node left behind: {left}; testbed down: {down}"

    def _testbed_down(self) -> str:
        """Return what became of it."""
        try:
            done = self.meshctl("testbed", "down")
        except Exception as error:
            return repr(error)
        log = self.paths.run / "testbed.log"
        said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        return f"status {done.status}, {done.output}{done.errors}{said}"

    @property
    def _link(self) -> str:
        return host_link(self.paths.run / "testbed")

    def _left_after_all(self, patience: float = 20.0) -> list[str]:
        """What does not go by itself: the kernel may need a moment to end a killed process."""
        deadline = time.monotonic() + patience
        while (left := self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def leftovers(self) -> list[str]:
        """Of a node that has ended."""
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
        found = [line for line in links.stdout.splitlines() if self._link in line]
        found += [f"mount {mounted}" for mounted in self.mounts()]
        for pid in self.processes():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                found.append(f"process {pid} {command.decode(errors='replace')}")
        found += [
            f"file {path}"
            for path in self.paths.run.glob("testbed*")
            if path.name not in {"testbed.log"}
        ]
        found += [f"file {path}" for path in self.paths.netns.glob("*")]
        return found

    def mounts(self) -> list[str]:
        return mounts_below(self.home)

    def processes(self) -> list[int]:
        """Those of the node, and those of its pods."""
        return processes_of(self.home, self.cidr)

    # ---- what it says

    def ask(self, role: str, request: wire.Message, timeout: float = PATIENCE) -> wire.AnyMessage:
        return asyncio.run(channel.call(self.paths.socket(role), request, timeout=timeout))

    def children(self) -> dict[str, wire.RoleStatus]:
        """By name, of those that run."""
        answer = self.ask("supervisor", wire.Children())
        assert isinstance(answer, wire.ChildStates)
        return {child.name: child for child in answer.children if child.pid}

    def proxies(self) -> list[wire.RoleStatus]:
        """Those that run; a new one in the place of an old one has another name."""
        found = sorted(self.children().items())
        return [child for name, child in found if Member.parse(name)]

    def statuses(self) -> wire.Statuses:
        answer = self.ask("mesh", wire.Status())
        assert isinstance(answer, wire.Statuses)
        return answer

    def is_well(self, *, inbound: bool = True) -> bool | Missing:
        """All processes run, all proxies have everything, all workloads are proven.

        Pods are in both directions, but for those that the host has no wire to (``inbound``).
        """
        try:
            status = self.statuses()
            running = self.children()
        except Exception as error:  # whatever keeps it from answering
            return Missing(repr(error))
        lacking = "; ".join(_lacking(status, running, inbound=inbound))
        return Missing(lacking) if lacking else True

    # ---- meshctl

    def meshctl(self, *arguments: str, text: str = "", timeout: float = 3 * PATIENCE) -> Process:
        command = [*self.prefix, str(MESHCTL), *arguments]
        return run(command, self.environment, text, timeout)

    def apply(self, text: str, *, delete: bool = False, namespace: str = "mesh") -> None:
        """Until every proxy has it, and serves it."""
        request = wire.Apply((("-", text),), namespace, wait=PATIENCE, delete=delete)
        answer = self.ask("mesh", request, PATIENCE + 5)
        assert isinstance(answer, wire.Changed), answer
        eventually(self.is_warm, "what the proxies have taken is what they serve")

    def is_warm(self) -> bool:
        """Whether no proxy waits for a secret or an endpoint of a listener or cluster."""

        try:
            found = [
                asyncio.run(Admin(self.paths.admin_run / f"{one.name}.sock").stats(WARMING))
                for one in self.proxies()
            ]
        except MeshdError:
            return False
        return not any(value for stats in found for value in stats.values())

    @contextlib.contextmanager
    def applied(self, text: str) -> Generator[None]:
        """Within the block."""
        self.apply(text)
        try:
            yield
        finally:
            self.apply(text, delete=True)


def _lacking(status: wire.Statuses, running: Collection[str], *, inbound: bool) -> Iterator[str]:
    """What a node needs to be well."""
    yield from (f"{role} does not run" for role in ROLES if role not in running)
    connected = [proxy for proxy in status.proxies if proxy.connected]
    if len(connected) != len(PROXIES):
        yield f"{len(connected)} proxies are connected, not {len(PROXIES)}"
    yield from (f"{proxy.name} lacks configuration" for proxy in connected if not proxy.synced)
    for row in status.workloads:
        if row.enrolled and not (row.proven and row.certificate_expires):
            yield f"{row.workload}: {row.problem or 'it has no certificate'}"
        if inbound and row.netns and row.unseen:
            yield f"{row.workload}: {row.unseen}"
