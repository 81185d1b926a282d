"""A machine with Debian's containerd, a bridged network for containers, and a meshd of its own."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Final

from tests.containers import programs
from tests.containers.images import box
from tests.containers.machine import Done, Machine
from tests.containers.mesh import Mesh
from tests.waiting import PATIENCE, Missing, eventually

ADDRESS: Final = "198.18.252.1"
NETWORK: Final = "198.18.253.0/24"
NET_D: Final = "/etc/cni/net.d"
PROGRAMS: Final = "/opt/cni/bin"
LIST: Final = "10-containers.conflist"
BRIDGED: Final[dict[str, Any]] = {
    "cniVersion": "1.0.0",
    "name": "containers",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": NETWORK}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}
_SETTINGS: Final = "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n"


class Runtime:
    """Containers share one tree of files, with busybox in it."""

    eventually = staticmethod(eventually)

    def __init__(self, settings: dict[str, Any]) -> None:
        self.machine = Machine(
            "runtime",
            path=programs.PATH,
            directories=("/var/lib/containerd",),
            commands=(
                ("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire"),
                ("ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0"),
                ("ip", "link", "set", "eth0", "up"),
                ("ip", "link", "set", "wire", "up"),
                ("ip", "route", "add", "default", "dev", "eth0"),
            ),
        )
        self.mesh = Mesh(self.machine, settings)
        self._tree = self.machine.home / "tree"

    # ---- its programs

    def start(self) -> None:
        machine = self.machine
        machine.start()
        self._tree.mkdir()
        layer = self.machine.home / "layer.tar"
        layer.write_bytes(box())
        machine.ask("tar", "-xf", str(layer), "-C", str(self._tree))
        machine.ask("mkdir", "-p", NET_D, PROGRAMS)
        machine.ask("sh", "-c", f"ln -s {programs.CNI}/* {PROGRAMS}/")
        self.write_list(BRIDGED)
        settings = machine.write("containerd.toml", _SETTINGS)
        machine.begin("containerd", "containerd", "--config", settings)
        self.eventually(lambda: self.ctr("version").returncode == 0, "containerd answers")

    def write_list(self, content: dict[str, Any], name: str = LIST) -> None:
        self.machine.ask("tee", f"{NET_D}/{name}", text=json.dumps(content))

    def read_list(self, name: str = LIST) -> dict[str, Any]:
        return json.loads(self.machine.ask("cat", f"{NET_D}/{name}"))

    # ---- containers

    def ctr(self, *arguments: str, timeout: float = PATIENCE) -> Done:
        return self.machine.run("ctr", *arguments, timeout=timeout)

    def run(self, name: str, *command: str) -> Container:
        """Start a container; its end is ours to wait for."""
        options = ("--rm", "--cni", "--rootfs", "--env", "PATH=/bin", str(self._tree), name)
        process = self.machine.begin(name, "ctr", "run", *options, *command)
        return Container(self, name, process)

    def task(self, name: str) -> str:
        """Return what containerd says of a container's process; empty if there is none."""
        listed = self.ctr("task", "ls").stdout.splitlines()
        return next((line for line in listed if line.startswith(f"{name} ")), "")

    def workloads(self) -> dict[str, dict[str, Any]]:
        return self.mesh.workloads()

    def close(self) -> None:
        self.machine.close()


class Container:
    """A container of ``ctr run``, which ends it with all that was attached to it."""

    def __init__(self, runtime: Runtime, name: str, process: subprocess.Popen[bytes]) -> None:
        self._runtime = runtime
        self.name = name
        self.process = process

    @property
    def said(self) -> str:
        return self._runtime.machine.log(self.name)

    def running(self) -> Container:
        """Wait until its process runs."""

        def runs() -> bool | Missing:
            assert self.process.poll() is None, self.said
            return "RUNNING" in self._runtime.task(self.name) or Missing(self.said)

        self._runtime.eventually(runs, f"{self.name} runs")
        return self

    def exec(self, *command: str) -> Done:
        name = f"e{os.urandom(4).hex()}"
        return self._runtime.ctr("task", "exec", "--exec-id", name, self.name, *command)

    def end(self) -> None:
        self._runtime.ctr("task", "kill", "--signal", "SIGKILL", self.name)
        self.process.wait(PATIENCE)
