"""The traces of a node on the machine: processes, mounts, namespaces, links, rules, cgroups."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from meshd.pods import kernel
from meshd.pods.network import host_link

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = "meshd-exec-"
"""Names of the cgroups that a node makes begin with it. Those of units belong to systemd, maybe to
that of a machine that boots beside the node."""
_SAVERS: Final = (
    "iptables-nft-save",
    "ip6tables-nft-save",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
)
_NAMESPACE: Final = re.compile(r"\bnet:\[(\d+)\]")


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """The host's own state, which a node must leave as it was."""

    rules: frozenset[str]
    cgroups: frozenset[str]

    @classmethod
    def look(cls) -> Machine:
        # Not rglob: others' cgroups come and go while we look.
        cgroups = cgroups_of(path for path, _, _ in os.walk(_CGROUPS))
        return cls(frozenset(_rules()), cgroups)


def cgroups_of(directories: Iterable[str]) -> frozenset[str]:
    """Return the cgroups that a node has made. Pure."""
    return frozenset(
        path for path in directories if path.rpartition("/")[2].startswith(_OWN_CGROUP)
    )


def _rules() -> Iterator[str]:
    """Yield the rules in the host's own namespace, of both kinds of tables."""
    for program in _SAVERS:
        with contextlib.suppress(FileNotFoundError):
            done = subprocess.run([program], capture_output=True, text=True, check=False)
            yield from (f"{program}: {rule}" for rule in rules_of(done.stdout))


def rules_of(text: str) -> Iterator[str]:
    """Yield the chains' names and rules of iptables-save, without counters. Pure."""
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith((":", "-A")):
            yield f"{table} {line.partition(' [')[0]}"


def namespaces(directories: Iterable[Path]) -> frozenset[int]:
    """Return the inodes of the network namespaces that are mounted in directories."""
    paths = [
        path for directory in directories if directory.is_dir() for path in directory.iterdir()
    ]
    return frozenset(path.stat().st_ino for path in paths)


def left(
    home: Path, testbed: Path, known: frozenset[int], before: Machine, pids: Iterable[int]
) -> list[str]:
    """Return a line for each trace of a node and its testbed.

    ``known`` are its namespaces, ``pids`` its processes.
    """
    now = Machine.look()
    found = [f"process {pid}: {_name_of(pid)}" for pid in pids]
    found += [f"mount {point}" for point in kernel.mounts_below(home)]
    found += [f"network namespace net:[{inode}]" for inode in sorted(known & _living())]
    found += [f"rule {rule}" for rule in sorted(now.rules - before.rules)]
    found += [f"cgroup {name}" for name in sorted(now.cgroups - before.cgroups)]
    link = host_link(testbed)
    if Path("/sys/class/net", link).exists():
        found.append(f"link {link}")
    if home.exists():
        found.append(f"directory {home}")
    return found


def processes_of(home: Path) -> list[int]:
    """Return the processes that were started with the directory as their MESHD_HOME."""
    wanted = f"MESHD_HOME={home}".encode()
    found: list[int] = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return [pid for pid in found if pid != os.getpid()]


def descendants(pid: int) -> set[int]:
    """Return all descendants of a process."""
    children: dict[int, list[int]] = {}
    for child in _pids():
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{child}/stat").read_text(encoding="utf-8", errors="replace")
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(child)
    found: set[int] = set()
    ahead = [pid]
    while ahead:
        new = set(children.get(ahead.pop(), ())) - found
        found |= new
        ahead += new
    return found


def _living() -> set[int]:
    """Return the inodes of network namespaces that a process or a mount keeps."""
    found: set[int] = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            found.add(os.stat(f"/proc/{pid}/ns/net").st_ino)  # noqa: PTH116
            text = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8")
            found.update(int(inode) for inode in _NAMESPACE.findall(text))
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _name_of(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "just ended"
    return b" ".join(words).decode(errors="replace").strip()
