"""A host with meshd running as its service, and pods: what the tests of it have in common."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from meshd import wire
from meshd.proxy.pool import Member
from meshd.wire import channel
from tests.host.machine import Done, Machine
from tests.host.population import APPS, IMAGE_MAP, IMAGES, POPULATION
from tests.host.traffic import PYTHON, Report, Span, under_load
from tests.waiting import PATIENCE, Missing, eventually

SETTINGS: Final = """\
mesh: {service_cidr: 198.19.0.0/16, dns_upstreams: ["127.0.0.1:9"]}
capture: {probe_interval: 1s}
proxy: {count: 2, drain_time: 2s}
"""
_PROXIES: Final = 4
"""Two that carry traffic, and two that carry DNS."""
ROLES: Final = ("capture", "identity", "mesh", "telemetry")
CLIENT: Final = ("meshctl", "testbed", "exec", "-n", "mesh", "deploy/client", "--")


class Node:
    def __init__(self, machine: Machine, settings: str = SETTINGS) -> None:
        self.machine = machine
        self.configure(settings)
        shutil.copytree(Path(__file__).with_name("apps"), machine.root / APPS.lstrip("/"))
        machine.write(IMAGES, IMAGE_MAP)

    def configure(self, settings: str) -> None:
        self.machine.write("/etc/meshd/meshd.yaml", settings)

    def boot(self) -> None:
        """With pods, and all of them in the mesh."""
        self.machine.boot()
        self.machine.ask("systemctl", "start", "meshd")
        self.up()

    def up(self) -> None:
        command = ("meshctl", "testbed", "up", "-f", "-", "--images", IMAGES)
        self.machine.ask(*command, text=POPULATION)
        self.get_well()

    def get_well(self) -> None:
        eventually(self.is_well, "all roles and proxies run, and all pods are proven")

    def is_well(self) -> bool | Missing:
        try:
            status, running = self.statuses(), self.children()
        except Exception as error:  # whatever keeps it from answering
            return Missing(repr(error))
        connected = [proxy for proxy in status.proxies if proxy.connected]
        lacking = [
            *(f"{role} does not run" for role in ROLES if role not in running),
            *(f"{one.name} lacks configuration" for one in connected if not one.synced),
            *(f"{row.workload}: {row.problem}" for row in status.workloads if not is_in(row)),
        ]
        if len(connected) != _PROXIES:
            lacking.append(f"{len(connected)} proxies are connected, not {_PROXIES}")
        return Missing("; ".join(lacking)) if lacking else True

    # ---- meshd

    def ask(self, role: str, request: wire.Message) -> wire.AnyMessage:
        path = Path(f"/proc/{self.machine.leader}/root/run/meshd/{role}.sock")
        return asyncio.run(channel.call(path, request, timeout=PATIENCE))

    def children(self) -> dict[str, wire.RoleStatus]:
        """By name, of those that run."""
        answer = self.ask("supervisor", wire.Children())
        assert isinstance(answer, wire.ChildStates)
        return {child.name: child for child in answer.children if child.pid}

    def statuses(self) -> wire.Statuses:
        answer = self.ask("mesh", wire.Status())
        assert isinstance(answer, wire.Statuses)
        return answer

    def proxies(self) -> dict[str, int]:
        return {name: child.pid for name, child in self.children().items() if Member.parse(name)}

    def kill(self, name: str) -> Span:
        """The process, and waits for the one that takes its place. Returns when it died."""
        pid = self.children()[name].pid
        begun = time.time()
        self.machine.ask("sh", "-c", f"kill -KILL {pid}; while kill -0 {pid}; do :; done 2>&-")
        death = Span(begun, time.time())
        eventually(lambda: self._is_new(name, pid), f"{name} is started again")
        return death

    def _is_new(self, name: str, pid: int) -> bool:
        with contextlib.suppress(Exception):
            found = self.children().get(name)
            return bool(found and found.pid != pid)
        return False

    def systemctl(self, *words: str) -> None:
        self.machine.ask("systemctl", *words)

    def metric(self, name: str) -> dict[str, float]:
        """Values by what stands between the braces."""
        text = self.machine.ask("curl", "-sS", "http://127.0.0.1:15020/metrics")
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return {
            line.partition("{")[2].rpartition("}")[0]: float(line.rpartition(" ")[2])
            for line in lines
        }

    # ---- traffic

    def client(self, *command: str, timeout: float = 2 * PATIENCE) -> Done:
        return self.machine.run(*CLIENT, *command, timeout=timeout)

    def status_of(self, url: str) -> str:
        """000: no answer."""
        options = ("-s", "-o", "/dev/null", "-m", "20", "-w", "%{http_code}")
        return self.client("curl", *options, url).stdout

    @contextlib.contextmanager
    def load(self, rate: int = 200) -> Generator[list[Report]]:
        """From within the block to its end; what came of it is then in the list."""
        command = (*CLIENT, PYTHON, "/srv/app/load.py", "server", str(rate))
        with under_load(self.machine, *command) as reports:
            yield reports


def is_in(row: wire.WorkloadStatus) -> bool:
    """Whether a workload is as it is to be."""
    return row.proven or not row.enrolled
