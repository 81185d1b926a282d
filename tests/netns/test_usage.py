"""What a service of the host uses, told by its cgroup."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from meshd.telemetry.usage import compare
from meshd.telemetry.usage_reading import Place, Reader

SERVICE = """
import socket, sys
memory = bytearray(20_000_000)
held = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
held.sendall(bytes(3000))
print("ready", flush=True)
while held.recv(1000):
    print("went on", flush=True)
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """One of version 2, as systemd would make it, with one below it."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    root = next(Path(line.split()[1]) for line in mounts if line.split()[2] == "cgroup2")
    path = root / f"meshd-usage-{os.getpid()}"
    (path / "inner").mkdir(parents=True)
    yield path
    (path / "inner").rmdir()
    path.rmdir()


@contextlib.contextmanager
def service(cgroup: Path, port: int) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [
            *("sh", "-c", f'echo $$ > {cgroup}/inner/cgroup.procs; exec "$@"', "sh"),
            *(sys.executable, "-c", SERVICE, str(port)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_service_is_all_processes_below_its_cgroup_and_their_connections(cgroup: Path) -> None:
    place = Place("default/web", cgroup=cgroup.name)
    reader = Reader()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        service(cgroup, server.getsockname()[1]) as process,
        server.accept()[0] as peer,
    ):
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        assert len(peer.recv(3000, socket.MSG_WAITALL)) == 3000
        before = reader.read([place])[place.name]
        peer.sendall(bytes(500))
        assert process.stdout.readline() == "went on\n"
        now = reader.read([place])[place.name]
    row = compare("default", "web", before, now)
    assert row.processes == 1
    assert row.memory > 20_000_000
    assert row.connections == 1
    assert (row.received, row.sent) == (500, 3000)
    assert row.received_per_second


def test_a_service_that_does_not_run_uses_nothing(cgroup: Path) -> None:
    place = Place("default/web", cgroup=cgroup.name)
    row = compare("default", "web", None, Reader().read([place])[place.name])
    assert (row.processes, row.memory, row.connections, row.received) == (0, 0, 0, None)
