"""A registered path that leads to no network namespace of a workload delays no other workload."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshd.base.errors import MeshdError
from meshd.capture.pods.namespaces import Pins


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


MADE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "directory": Path.mkdir,
    "empty file": Path.touch,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "loop": lambda path: path.symlink_to(path.name),
    "mount namespace": lambda path: path.symlink_to("/proc/self/ns/mnt"),
    "user namespace": lambda path: path.symlink_to("/proc/self/ns/user"),
    "host's": lambda path: path.symlink_to("/proc/self/ns/net"),
    "host's by another process": lambda path: path.symlink_to(f"/proc/{os.getppid()}/ns/net"),
    "memory of a process": lambda path: path.symlink_to("/proc/self/mem"),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_path_that_is_no_workloads_network_namespace_is_refused_at_once(
    tmp_path: Path, kind: str
) -> None:
    path, pins = tmp_path / "odd", Pins(tmp_path / "pins")
    MADE[kind](path)
    with pytest.raises(MeshdError, match=str(path)):
        pins.pin("default.odd", path)
    assert pins.list_pins() == ()


@pytest.mark.parametrize("path", ["/" + "x" * 300, "/x" * 3000, "/proc/1", "", "\0", "/run/\ud800"])
def test_a_path_that_cannot_be_one_is_refused(tmp_path: Path, path: str) -> None:
    pins = Pins(tmp_path / "pins")
    with pytest.raises(MeshdError):
        pins.pin("default.odd", Path(path))
    assert pins.list_pins() == ()


def test_a_namespace_has_the_same_inode_by_whatever_path_it_is_pinned(
    network: Any, tmp_path: Path
) -> None:
    pins, source = Pins(tmp_path / "pins"), network.workload.netns
    link = tmp_path / "link"
    link.symlink_to(source)
    try:
        for index, path in enumerate((source, link, source.parent / ".." / "netns" / source.name)):
            assert pins.pin(f"default.a{index}", path).inode == source.stat().st_ino
    finally:
        for uid in pins.list_pins():
            pins.unpin(uid)
