"""Pods that run already are found in their namespaces, and only where they have their addresses."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from meshd.capture.pods import located
from meshd.capture.rules import inside
from tests.waiting import eventually

UID = "0b1c2d3e-0000-4000-8000-00000000000a"
ADDRESS = "198.18.7.9"
NAME = "meshd-test-located"


@pytest.fixture
def namespace() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    commands = (
        ("link", "add", "eth0", "type", "veth", "peer", "name", "wire"),
        ("address", "add", f"{ADDRESS}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("link", "set", "wire", "up"),
    )
    try:
        for command in commands:
            subprocess.run(["ip", "-n", NAME, *command], check=True)
        yield NAME
    finally:
        subprocess.run(["ip", "netns", "del", NAME], check=True)


@contextlib.contextmanager
def in_group(*command: str) -> Generator[int]:
    """Run a command in a control group that is named as a pod's."""
    hierarchy = Path("/sys/fs/cgroup/unified")
    root = hierarchy if hierarchy.is_dir() else Path("/sys/fs/cgroup")
    group = root / f"kubepods-pod{UID.replace('-', '_')}.slice"
    group.mkdir()
    join = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    process = subprocess.Popen(["sh", "-ec", join, "sh", *command, "sleep", "1000"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()
        group.rmdir()


def waited(addresses: tuple[str, ...]) -> object:
    return eventually(lambda: located.locate({UID: addresses}), "the pod is found")


def test_a_pod_is_found_with_its_namespaces_cookie(namespace: str) -> None:
    with in_group("ip", "netns", "exec", namespace) as pid:
        found = waited((ADDRESS, "fd00:198::9"))
        cookie = inside.cookie_of(Path(f"/run/netns/{namespace}"))
        assert found == {UID: located.Place(f"/proc/{pid}/ns/net", cookie)}
        assert located.locate({UID: ("198.18.7.10",)}) == {}
        assert located.locate({}) == {}


def test_a_pod_of_the_hosts_own_network_is_not_found() -> None:
    with in_group("env"):
        assert located.locate({UID: ("127.0.0.1", ADDRESS)}) == {}
