"""Whole nodes under MESHD_HOMEs of their own, with pods; nothing of them is left afterwards.

Tests take the types of the fixtures from here when they are checked, not when they run.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshd import channel, wire
from meshd.proxy.pool import Member
from meshd.settings import Paths
from meshd.testbed.client import Client, command_inside, select
from meshd.testbed.files import Home
from meshd.testbed.network import host_link

APPS = Path(__file__).with_name("apps")
PATIENCE = 20.0
"""Seconds after which a condition that should come by itself counts as missed."""
MESHCTL = Path(sys.executable).with_name("meshctl")
DEFAULTS = {
    # No resolver is there: nothing asks for names outside.
    "mesh": {"service_cidr": "198.19.0.0/16", "dns_upstreams": ["127.0.0.1:9"]},
    "telemetry": {"port": 0},
    "proxy": {"drain_time": "1s"},
    "capture": {"probe_interval": "1s"},
}
SERVER_PORTS = (
    ("http-web", 80, 8080),
    ("grpc", 90, 9090),
    ("tcp-first", 91, 9000),
    ("a", 70, 7000),
    ("b", 71, 7001),
    ("c", 72, 9090),
)


PROXIES = ("proxy-0", "proxy-1", "dns-0", "dns-1")
"""Those of a node with the usual settings."""


def eventually(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """What the condition gives, once it is true. AssertionError when it does not become so."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(0.05)
    return found


@dataclasses.dataclass(frozen=True)
class Process:
    """A command that ended."""

    status: int
    output: str
    errors: str

    def json(self) -> Any:
        assert self.status == 0, f"status {self.status}: {self.output[-500:]} {self.errors[-500:]}"
        return json.loads(self.output.splitlines()[-1])


class Write:
    """Manifests, as few words as will do."""

    @staticmethod
    def manifest(kind: str, name: str, namespace: str, **fields: Any) -> dict[str, Any]:
        versions = {"Deployment": "apps/v1"}
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        metadata |= fields.pop("metadata", {})
        return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": metadata} | fields

    @staticmethod
    def namespace(name: str, *, enrolled: bool) -> dict[str, Any]:
        labels = {"istio.io/dataplane-mode": "ambient"} if enrolled else {}
        return Write.manifest("Namespace", name, "", metadata={"labels": labels})

    @staticmethod
    def deployment(
        name: str,
        space: str = "mesh",
        *,
        program: str = "",
        labels: dict[str, str] | None = None,
        replicas: int = 1,
        ready: int = 0,
    ) -> dict[str, Any]:
        """A pod of its own service account. ``program`` of apps/; none: a client."""
        container: dict[str, Any] = {"name": "main", "image": "app"}
        if program:
            container["command"] = [sys.executable, "-u", f"/srv/app/{program}"]
        if ready:
            container["readinessProbe"] = {"tcpSocket": {"port": ready}, "periodSeconds": 1}
        own = {"app": name} | (labels or {})
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": own},
                "spec": {"serviceAccountName": name, "containers": [container]},
            },
        }
        return Write.manifest("Deployment", name, space, spec=spec)

    @staticmethod
    def service(
        name: str,
        space: str = "mesh",
        *,
        app: str = "",
        headless: bool = False,
        ports: tuple[tuple[str, int, int], ...] = SERVER_PORTS,
    ) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "selector": {"app": app or name},
            "ports": [{"name": n, "port": p, "targetPort": t} for n, p, t in ports],
        }
        if headless:
            spec["clusterIP"] = "None"
        return Write.manifest("Service", name, space, spec=spec)

    @staticmethod
    def dump(*objects: dict[str, Any]) -> str:
        return yaml.safe_dump_all(objects)


def finish(process: subprocess.Popen[str], text: str | None = None) -> Any:
    """What an ``ask.py`` printed."""
    try:
        output, errors = process.communicate(text, timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, errors[-2000:]
    return json.loads(output.splitlines()[-1])


class Node:
    """One node, and its testbed in a network of its own."""

    start_command = (sys.executable, "-P", "-m", "meshd")
    write = Write
    eventually = staticmethod(eventually)
    finish = staticmethod(finish)

    def __init__(self, settings: dict[str, Any], cidr: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"mn{os.getpid()}-", dir="/run"))
        self.home.chmod(0o755)
        self.paths = Paths(self.home / "etc", self.home / "lib", self.home / "run")
        self.cidr = cidr
        self.settings = settings
        self.images = self.home / "apps"
        self.prefix: tuple[str, ...] = ()
        """Before its commands: where they are to run."""
        self._environment = {**os.environ, "MESHD_HOME": str(self.home)}
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
                env=self._environment,
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
        with contextlib.suppress(Exception):
            self.meshctl("testbed", "down", timeout=60)
        if self._supervisor and self._supervisor.poll() is None:
            self._supervisor.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._supervisor.wait(10)
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
        assert not left, f"the node left behind: {left}"

    @property
    def _link(self) -> str:
        return host_link(self.paths.run / "testbed")

    def _left_after_all(self, patience: float = 2.0) -> list[str]:
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
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return [at for line in mounts if (at := line.split(" ")[1]).startswith(f"{self.home}/")]

    def processes(self) -> list[int]:
        """Those of the node, and those of its pods (whose uids are out of their addresses)."""
        found: list[int] = []
        marker = f"MESHD_HOME={self.home}".encode()
        third = int(self.cidr.split(".")[2])
        uids = range(200_000 + third * 256, 200_000 + third * 256 + 256)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = marker in (process / "environ").read_bytes().split(b"\0")
                zombie = "\nState:\tZ" in (process / "status").read_text()
                if (ours or process.stat().st_uid in uids) and not zombie:
                    found.append(int(process.name))
        return found

    def ask(self, role: str, request: wire.Message, timeout: float = 30) -> wire.AnyMessage:
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

    def is_well(self) -> bool:
        """All processes run, all proxies have everything, all workloads are proven."""
        try:
            status = self.statuses()
            running = self.children()
        except Exception:  # whatever keeps it from answering
            return False
        connected = [proxy for proxy in status.proxies if proxy.connected]
        return (
            {"capture", "identity", "mesh", "telemetry"} <= running.keys()
            and len(connected) == len(PROXIES)
            and all(proxy.synced for proxy in connected)
            and all(
                row.proven and row.certificate_expires for row in status.workloads if row.enrolled
            )
        )

    # ---- meshctl

    def meshctl(self, *arguments: str, text: str = "", timeout: float = 90) -> Process:
        done = subprocess.run(
            [*self.prefix, str(MESHCTL), *arguments],
            env=self._environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        return Process(done.returncode, done.stdout, done.stderr)

    def apply(self, text: str, *, delete: bool = False, namespace: str = "mesh") -> None:
        """Until every proxy has it."""
        request = wire.Apply((("-", text),), namespace, wait=PATIENCE, delete=delete)
        answer = self.ask("mesh", request, PATIENCE + 5)
        assert isinstance(answer, wire.Changed), answer

    @contextlib.contextmanager
    def applied(self, text: str) -> Generator[None]:
        """Within the block."""
        self.apply(text)
        try:
            yield
        finally:
            self.apply(text, delete=True)

    # ---- pods

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

    def exec(self, pod: str, *command: str, timeout: float = 60, text: str = "") -> Process:
        argv, environment = self.command(pod, *command)
        done = subprocess.run(
            argv,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        return Process(done.returncode, done.stdout, done.stderr)

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


POPULATION = [
    Write.namespace("mesh", enrolled=True),
    Write.namespace("outside", enrolled=False),
    Write.deployment("server", program="server.py", ready=8080),
    Write.service("server"),
    Write.service(
        "bare",
        app="server",
        headless=True,
        ports=(("http-web", 8080, 8080), ("tcp-first", 9000, 9000)),
    ),
    *(Write.deployment(name) for name in ("alice", "bob", "carol")),
    Write.deployment("stranger", "outside"),
    Write.deployment("external", "outside", program="server.py", ready=8080),
]
"""A server, three clients of service accounts of their own, and two pods outside the mesh."""


def host_rules() -> str:
    """The host's own, without what packets count."""
    saved = "".join(
        subprocess.run([program], capture_output=True, text=True, check=True).stdout
        for program in ("iptables-save", "ip6tables-save")
    )
    lines = [line for line in saved.splitlines() if not line.startswith("#")]
    return re.sub(r"\[\d+:\d+\]", "", "\n".join(lines))


def free_network() -> str:
    """A /24 of 198.18.0.0/16 that no link of this host has."""
    links = subprocess.run(
        ["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True
    ).stdout
    start = int(hashlib.sha256(str((os.getpid(), time.time())).encode()).hexdigest(), 16)
    taken = {int(found) for found in re.findall(r"198\.18\.(\d+)\.", links)}
    choices = (130 + (start + step) % 120 for step in range(120))
    third = next(number for number in choices if number not in taken and reserve(number))
    return f"198.18.{third}.0/24"


_reserved: list[socket.socket] = []


def reserve(number: int) -> bool:
    """Whether no other process of tests has it; until this one ends nobody else gets it."""
    mark = socket.socket(socket.AF_UNIX)
    try:
        mark.bind(f"\0meshd-test-network-{number}")
    except OSError:
        mark.close()
        return False
    _reserved.append(mark)
    return True


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_node(**settings: dict[str, Any]) -> Node:
    """Not started yet. Who makes it closes it."""
    mesh = {"dns_port": free_port()} | settings.pop("mesh", {})
    return Node({"mesh": DEFAULTS["mesh"] | mesh} | settings, free_network())


@pytest.fixture(scope="session", autouse=True)
def clean_host() -> Iterator[None]:
    before = host_rules()
    yield
    assert host_rules() == before


@pytest.fixture(scope="session")
def make(clean_host: None) -> Iterator[Callable[..., Node]]:
    """Makes nodes, and ends them with the session if nobody did before."""
    with contextlib.ExitStack() as stack:

        def making(**settings: dict[str, Any]) -> Node:
            made = make_node(**settings)
            stack.callback(lambda: made.home.exists() and made.close())
            return made

        yield making


@pytest.fixture(scope="session")
def node(make: Callable[..., Node]) -> Node:
    """A node with ``POPULATION``, shared by all modules: leave it as you found it."""
    made = make()
    made.start()
    made.up(Write.dump(*POPULATION))
    return made
