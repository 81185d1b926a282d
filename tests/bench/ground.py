"""Where the bench happens: network namespaces on one switch, and programs in them.

The switch leads nowhere else, so addresses cannot be in anybody's way. Nothing is left when the
block ends, however it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Final

from meshd.pods import kernel
from meshd.pods.addresses import Subnet
from meshd.pods.network import create_namespace, entered, remove_namespace, run_batch

SUBNET: Final = Subnet.parse("198.18.0.0/16")
_FIRST: Final = 16
"""Number of the first host: the ones below are the switch's and the host's."""
_SYSCTLS: Final = {
    # A new connection for each request takes many ports.
    "net/ipv4/ip_local_port_range": "1024 65535",
    "net/ipv4/tcp_tw_reuse": "1",
    "net/ipv4/ip_unprivileged_port_start": "0",
}
_PATIENCE: Final = 5.0
"""Seconds for a program to end by itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """A network namespace with a link to the switch."""

    name: str
    path: Path
    address: str

    def run(self, command: Sequence[str], *, timeout: float) -> str:
        """What a program prints. Raises subprocess.CalledProcessError, TimeoutExpired."""
        done = subprocess.run(
            self.inside(command), capture_output=True, text=True, check=True, timeout=timeout
        )
        return done.stdout

    def inside(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net={self.path}", *command]


class Ground:
    """All hosts, and the programs that run in them until the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._switch = directory / "switch"
        self._programs: list[subprocess.Popen[bytes]] = []
        self._hosts: dict[str, Host] = {}
        self._next = _FIRST

    def open(self) -> None:
        create_namespace(self._switch)
        with entered(self._switch):
            run_batch(
                "link set lo up\n"
                "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n"
                f"address add {SUBNET.address(1)}/16 dev br0\n"
                "link set br0 up\n"
            )

    def add(self, name: str) -> Host:
        """Raises SystemRefusedError, OSError."""
        number, self._next = self._next, self._next + 1
        host = Host(name, self.directory / name, str(SUBNET.address(number)))
        self._hosts[name] = host
        create_namespace(host.path)
        with entered(self._switch):
            run_batch(
                f"link add h{number} type veth peer name eth0 netns {host.path}\n"
                f"link set h{number} master br0 up\n"
            )
        with entered(host.path):
            for key, value in _SYSCTLS.items():
                Path("/proc/sys", key).write_text(value, encoding="ascii")
            run_batch(
                "link set lo up\n"
                f"address add {host.address}/16 dev eth0\n"
                "link set eth0 up\n"
                f"route add default via {SUBNET.address(1)}\n"
            )
        return host

    def host(self, name: str) -> Host:
        return self._hosts[name]

    def remove(self, host: Host) -> None:
        remove_namespace(host.path)
        self._hosts.pop(host.name, None)

    def start(
        self, host: Host, command: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A program that runs until the end; what it says is in DIRECTORY/HOST.log."""
        with (self.directory / f"{host.name}.log").open("ab") as log:
            program = subprocess.Popen(
                host.inside(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._programs.append(program)
        return program

    def close(self) -> None:
        for program in self._programs:
            program.terminate()
        for program in self._programs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(_PATIENCE)
            program.kill()
            program.wait()
        for host in tuple(self._hosts.values()):
            self.remove(host)
        remove_namespace(self._switch)
        for point in kernel.mounts_below(self.directory):
            kernel.unmount(point)


@contextlib.contextmanager
def ground() -> Generator[Ground]:
    with tempfile.TemporaryDirectory(prefix="meshd-bench-", dir="/run") as name:
        directory = Path(name)
        directory.chmod(0o755)
        made = Ground(directory)
        try:
            made.open()
            yield made
        finally:
            made.close()
