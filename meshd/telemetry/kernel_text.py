"""Parsers of the kernel's text in /proc about connections, interfaces and mounts, and of ss(8).
Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Final

from meshd.base.numbers import whole

_ESTABLISHED: Final = "01"
_PSEUDO: Final = {
    *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts"),
    *("devtmpfs", "efivarfs", "fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore"),
    *("ramfs", "rpc_pipefs", "securityfs", "sysfs", "tracefs"),
}
"""Hold no files, or none that take space of their own."""
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_SOCKET: Final = re.compile(r"\bino:(\d+)")
_COUNT: Final = re.compile(r"\b(bytes_sent|bytes_retrans|bytes_received):(\d+)")


def _number(text: str) -> int:
    """Return the number; 0 if the text is not one."""
    return whole(text) or 0


def established(text: str) -> Iterator[int]:
    """Yield the inodes of connected sockets from /proc/PID/net/tcp and tcp6, proc_pid_net(5)."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != _ESTABLISHED:
            continue
        if (inode := _number(fields[9])) > 0:
            yield inode


def interfaces(text: str) -> Mapping[str, tuple[int, int]]:
    """Return bytes received and sent by interface, without loopback, from /proc/PID/net/dev."""
    found: dict[str, tuple[int, int]] = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        if (name := name.strip()) != "lo":
            fields = rest.split()
            if len(fields) > 8:  # else the text was cut off, as when its process ends
                found[name] = _number(fields[0]), _number(fields[8])
    return found


def sockets(text: str) -> Mapping[int, tuple[int, int]]:
    """Return bytes received and sent by the socket's inode, from ``ss --oneline --extended
    --info``.

    Retransmitted bytes count once.
    """
    found: dict[int, tuple[int, int]] = {}
    for line in text.splitlines():
        if inode := _SOCKET.search(line):
            counts = {name: _number(number) for name, number in _COUNT.findall(line)}
            sent = counts.get("bytes_sent", 0) - counts.get("bytes_retrans", 0)
            found[_number(inode[1])] = counts.get("bytes_received", 0), sent
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """A line of /proc/PID/mountinfo, proc_pid_mountinfo(5)."""

    device: str
    root: str
    """Which directory of the file system is mounted."""
    point: str
    kind: str
    writable: bool
    upper: str
    """Of an overlay: the directory that takes what is written, as whoever mounted it sees it."""

    @property
    def what(self) -> tuple[str, str]:
        """Return a key that is equal for two mounts of the same thing."""
        return self.device, self.root

    @property
    def is_temporary(self) -> bool:
        """Return whether the content goes with the workload."""
        return self.kind in {"tmpfs", "overlay"} or self.point in {"/tmp", "/var/tmp"}  # noqa: S108


def mounts(text: str) -> list[Mount]:
    """Return the mounts that hold files."""
    found = (_mount(line) for line in text.splitlines())
    return [mount for mount in found if mount and mount.kind not in _PSEUDO]


def _mount(line: str) -> Mount | None:
    """Parse one line; None if it was cut off."""
    left, _, right = line.partition(" - ")
    if left.count(" ") < 5 or right.count(" ") < 2:
        return None
    _, _, device, root, point, options = left.split(" ")[:6]
    kind, _, more = right.split(" ", 2)
    upper = next((part[9:] for part in more.split(",") if part.startswith("upperdir=")), "")
    return Mount(
        device=device,
        root=_unescaped(root),
        point=_unescaped(point),
        kind=kind,
        writable="rw" in options.split(","),
        upper=_unescaped(upper),
    )


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


def own_mounts(theirs: list[Mount], ours: list[Mount]) -> list[Mount]:
    """Return the writable mounts that are theirs and not ours too, each once."""
    known = {mount.what for mount in ours}
    found: dict[tuple[str, str], Mount] = {}
    for mount in theirs:
        if mount.writable and mount.what not in known:
            found.setdefault(mount.what, mount)
    return list(found.values())
