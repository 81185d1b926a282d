"""The node that is measured: meshd as it comes, under a home of its own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from meshd import wire
from meshd.api.tunnels import ANNOTATION
from meshd.base.errors import MeshdError, NotReadyError, SystemRefusedError
from meshd.demo.tutorial import node as demo
from meshd.model.workload import Workload
from meshd.proxy.admin import Admin
from meshd.proxy.machine import capacity_here
from meshd.proxy.pool import Member
from meshd.settings import Paths, ProxySettings
from meshd.wire import channel
from tests.bench.ground import Host

SPACE: Final = "bench"
_PROXIES: Final = capacity_here(ProxySettings()).size.members + 2
"""Those that carry traffic, and two that carry DNS."""
_READY: Final = 30.0
_PROVEN: Final = 60.0
"""Seconds."""
_LOOK: Final = 0.05
_HEAP: Final = "server.memory_allocated"


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """One process of the node. Sizes in bytes, times in seconds."""

    name: str
    resident: int
    proportional: int
    """Resident, each page divided by the number of processes that have it."""
    private: int
    cpu: float
    allocated: int = 0
    """What a proxy itself says that it has allocated."""

    @property
    def is_proxy(self) -> bool:
        return Member.parse(self.name) is not None


class Node:
    """Talks to it as the testbed does, without the testbed's cost."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._node = demo.Node()
        self._unready = ""
        self.paths = Paths.from_environment({"MESHD_HOME": str(self._node.home)})
        merged: dict[str, Any] = yaml.safe_load(self._node.settings)
        for key, value in settings.items():
            merged[key] = {**merged.get(key, {}), **value} if isinstance(value, dict) else value
        self.paths.settings.write_text(yaml.safe_dump(merged), encoding="utf-8")

    def start(self) -> None:
        """Raises MeshdError when it does not come up."""
        self._node.start()
        try:
            eventually(self._is_up, "meshd runs", _READY)
        except NotReadyError as error:
            seen = self._unready or self._node.last_words()
            raise NotReadyError(f"{error}; last seen: {seen}") from None

    def _is_up(self) -> bool:
        if not self._node.runs:
            raise SystemRefusedError(f"meshd has ended: {self._node.last_words()}")
        try:
            answer = self.ask("mesh", wire.Status())
        except MeshdError as error:
            self._unready = str(error)
            return False
        proxies = answer.proxies if isinstance(answer, wire.Statuses) else ()
        self._unready = f"proxies {proxies}"
        return len(proxies) == _PROXIES and all(proxy.connected for proxy in proxies)

    def close(self) -> None:
        self._node.remove()

    def ask(self, role: str, request: wire.Message, timeout: float = 10) -> wire.AnyMessage:
        """Raises MeshdError, also when the answer is that it could not be done."""
        answer = asyncio.run(channel.call(self.paths.socket(role), request, timeout=timeout))
        if isinstance(answer, wire.Failed | wire.Rejected):
            raise SystemRefusedError(f"{type(request).__name__}: {answer}")
        return answer

    def apply(self, *objects: dict[str, Any]) -> None:
        """Until every proxy has it."""
        self._change(objects, delete=False)

    def forget(self, *objects: dict[str, Any]) -> None:
        """Take back what was applied, until every proxy has let go of it."""
        self._change(objects, delete=True)

    def submit(self, *objects: dict[str, Any]) -> None:
        """Without waiting for the proxies."""
        self.ask("mesh", wire.Apply((("-", yaml.safe_dump_all(objects)),), SPACE))

    def _change(self, objects: Sequence[dict[str, Any]], *, delete: bool) -> None:
        text = yaml.safe_dump_all(objects)
        request = wire.Apply((("-", text),), SPACE, wait=_PROVEN, delete=delete)
        self.ask("mesh", request, _PROVEN + 5)

    def register(self, *workloads: Workload) -> None:
        """Until all are proven."""
        self.ask("mesh", wire.Register(workloads, wait=_PROVEN), _PROVEN + 5)

    def meshctl(self, *arguments: str) -> str:
        """Return what the command prints. Raises SystemRefusedError."""
        done = subprocess.run(
            [sys.executable, "-m", "meshd.cli.main", *arguments],
            env=self._node.environment,
            cwd=demo.DIRECTORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROVEN,
        )
        if done.returncode:
            raise SystemRefusedError(f"meshctl {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def has(self, name: str) -> bool:
        """Return whether there is an object such as ``svc/NAME``."""
        try:
            self.meshctl("get", name, "-n", SPACE)
        except SystemRefusedError:
            return False
        return True

    def unregister(self, *uids: str) -> None:
        """Until nothing of them is left in the kernel."""
        self.ask("mesh", wire.Unregister(uids), _PROVEN)

    def processes(self) -> tuple[Process, ...]:
        """The supervisor and all its children."""
        answer = self.ask("supervisor", wire.Children())
        if not isinstance(answer, wire.ChildStates):
            raise SystemRefusedError(f"the supervisor answered {answer}")
        pids = {"supervisor": self._node.pid} | {one.name: one.pid for one in answer.children}
        return tuple(self._measure(name, pid) for name, pid in pids.items())

    def _measure(self, name: str, pid: int) -> Process:
        process = psutil.Process(pid)
        memory = process.memory_full_info()
        return Process(
            name=name,
            resident=memory.rss,
            proportional=memory.pss,
            private=memory.uss,
            cpu=cpu_of(pid),
            allocated=self._allocated(name) if Member.parse(name) else 0,
        )

    def _allocated(self, name: str) -> int:
        admin = Admin(self.paths.admin_run / f"{name}.sock")
        return asyncio.run(admin.stats(f"^{_HEAP}$"))[_HEAP]


def cpu_of(pid: int) -> float:
    """Return the seconds of all threads that live, which are finer than /proc/PID/stat has them."""
    found = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text(encoding="ascii").split()[0]) for path in found) / 1e9


def workload(host: Host, app: str = "") -> Workload:
    """Its service account is its app, and the services' selectors are for it."""
    app = app or "idle"
    return Workload(
        uid=f"{SPACE}.{host.name}",
        name=host.name,
        namespace=SPACE,
        netns=str(host.path),
        service_account=app,
        labels={"app": app},
        addresses=(host.address,),
        enrolled=True,
    )


def service(name: str, address: str, app: str, ports: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """``ports``: number and target by name, which says what is spoken.

    Tunnels suit it: of connections that it ends itself, each carries little.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": SPACE, "annotations": {ANNOTATION: "true"}},
        "spec": {
            "clusterIP": address,
            "selector": {"app": app},
            "ports": [
                {"name": port, "port": number, "targetPort": target}
                for port, (number, target) in ports.items()
            ],
        },
    }


def namespace() -> dict[str, Any]:
    labels = {"istio.io/dataplane-mode": "ambient"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE, "labels": labels}}


def eventually(condition: Callable[[], bool], what: str, patience: float) -> None:
    """Raises NotReadyError when the condition does not become true."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise NotReadyError(f"not within {patience:g} s: {what}")
        time.sleep(_LOOK)


@contextlib.contextmanager
def running(settings: dict[str, Any]) -> Generator[Node]:
    node = Node(settings)
    try:
        node.start()
        yield node
    finally:
        node.close()


def pool(processes: Sequence[Process]) -> tuple[Process, ...]:
    return tuple(process for process in processes if process.is_proxy)


def roles(processes: Sequence[Process]) -> tuple[Process, ...]:
    """All that is Python."""
    return tuple(process for process in processes if not process.is_proxy)
