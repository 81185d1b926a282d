"""The first process of a machine of the tests, in namespaces of its own.

It makes what kubelet and containerd need to find, says so, reaps, and ends when its standard input
does: with whoever started it, however that ended, and with it all that runs in here.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

READY: Final = "ready"
OVERLAID: Final = ("/etc", "/opt", "/var/lib", "/var/log")
"""Directories in which changes stay in here."""
KEPT: Final = (
    *("kernel/keys/root_maxbytes", "kernel/keys/root_maxkeys", "kernel/panic"),
    *("kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom"),
)
"""Settings of the whole machine that kubelet would write."""
_SYSTEM: Final = Path("/proc/sys")


def main(home: Path) -> None:
    options = json.loads((home / "machine.json").read_text())
    mount("--make-rprivate", "/")
    _let_go_of_namespaces()
    _overlay(home)
    _sysfs(options["hierarchies"])
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name in KEPT:
        if (setting := _SYSTEM / name).exists():
            copy = home / name.replace("/", "-")
            copy.write_text(setting.read_text())
            mount("--bind", str(copy), str(setting))
    for source, target in options["binds"].items():
        Path(target).mkdir(parents=True, exist_ok=True)
        mount("--bind", source, target)
    mount("--make-rshared", "/")
    for directory in options["directories"]:
        Path(directory).mkdir(parents=True, exist_ok=True)
    for command in options["commands"]:
        subprocess.run(command, check=True)
    print(READY, flush=True)
    _reap_until_told()


def _let_go_of_namespaces() -> None:
    """Unmount the namespaces of others, which would last as long as this machine."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if line.split(" ")[2] == "nsfs":
            subprocess.run(["umount", "--lazy", line.split(" ")[1]], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _overlay(home: Path) -> None:
    for place in OVERLAID:
        upper, work = (home / f"{kind}{place}" for kind in ("upper", "work"))
        for directory in (upper, work):
            directory.mkdir(parents=True)
        options = f"lowerdir={place},upperdir={upper},workdir={work}"
        mount("-t", "overlay", "-o", options, "overlay", place)


def _sysfs(hierarchies: dict[str, str]) -> None:
    """Mount what tells of this network namespace, and the hierarchies of control groups, whose
    roots are those of this machine."""
    mount("-t", "sysfs", "sysfs", "/sys")
    if hierarchies.keys() == {"unified"}:
        mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
        return
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup")
    for name, options in hierarchies.items():
        place = Path("/sys/fs/cgroup", name)
        place.mkdir()
        kind = "cgroup" if options else "cgroup2"
        mount("-t", kind, *(("-o", options) if options else ()), kind, str(place))


def _reap_until_told() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, _noticed)
    signal.set_wakeup_fd(writer)
    while True:
        ready, _, _ = select.select([reader, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        os.read(reader, 4096)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue


def _noticed(_number: int, _frame: object) -> None:
    """Have the kernel wake us."""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
