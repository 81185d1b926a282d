"""A machine for a node of Kubernetes: namespaces, control groups and directories of its own.

Nothing of it remains after ``close``, nor after this process has been killed, but for empty control
groups and a directory below /var/tmp.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.containers.init import READY
from tests.waiting import PATIENCE

CHECKOUT: Final = Path(__file__).parents[2]
_CGROUPS: Final = Path("/sys/fs/cgroup")
Done = subprocess.CompletedProcess[str]


class Machine:
    """``binds`` are directories of this host (source: target) that are to be seen inside."""

    def __init__(
        self,
        name: str,
        *,
        path: Sequence[Path] = (),
        binds: Mapping[str, str] | None = None,
        directories: Sequence[str] = (),
        commands: Sequence[Sequence[str]] = (),
    ) -> None:
        self.name = name
        self.home = Path(tempfile.mkdtemp(prefix=f"meshd-kube-{name}-", dir="/var/tmp"))
        self.home.chmod(0o755)
        self._path = path
        self._hierarchies = hierarchies()
        unique = self.home.name
        self._cgroups = [place / unique for place in self._hierarchies.values()]
        self._running: list[subprocess.Popen[bytes]] = []
        self._init: subprocess.Popen[str] | None = None
        self.pid = 0
        own = self.home / "own"
        targets = {str(own / target.replace("/", "-")): target for target in directories}
        for source in targets:
            Path(source).mkdir(parents=True)
        options = {
            "hierarchies": {
                place.name if place != _CGROUPS else "unified": _options(place)
                for place in map(_mounted_at, self._hierarchies.values())
            },
            "binds": {**targets, **(binds or {})},
            "directories": ["/run/netns", "/run/lock"],
            "commands": [["hostname", name], ["ip", "link", "set", "lo", "up"], *commands],
        }
        (self.home / "machine.json").write_text(json.dumps(options))

    def start(self) -> None:
        for cgroup in self._cgroups:
            _make(cgroup)
        command = [
            *("unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--cgroup"),
            *("--fork", "--mount-proc", "--propagation", "private"),
            *(sys.executable, "-m", "tests.containers.init", str(self.home)),
        ]
        self._init = subprocess.Popen(
            self._in_cgroups(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            start_new_session=True,
        )
        assert self._init.stdout
        said = self._init.stdout.readline().strip()
        assert said == READY, f"machine {self.name} did not start: {said}"
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text()
        self.pid = int(children.split()[0])

    def _in_cgroups(self, command: Sequence[str]) -> list[str]:
        """Run a command in the machine's control groups."""
        join = "".join(f"echo $$ > {cgroup}/cgroup.procs; " for cgroup in self._cgroups)
        return ["sh", "-ec", f'{join} exec "$@"', "sh", *command]

    # ---- inside

    def inside(self, *command: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line that runs a command in the machine."""
        usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        path = ":".join((*map(str, self._path), usual))
        given = {"PATH": path, "LC_ALL": "C.UTF-8", "HOME": "/root"} | dict(environment or {})
        entering = ["nsenter", f"--target={self.pid}", "--all", "--wd=/", "--"]
        words = [*entering, "env", "-i", *(f"{key}={value}" for key, value in given.items())]
        return self._in_cgroups([*words, *command])

    def run(
        self, *command: str, text: str = "", timeout: float = PATIENCE, check: bool = False
    ) -> Done:
        done = subprocess.run(
            self.inside(*command),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(command)}: status {done.returncode}: {done.stdout[-1500:]}"
            f"{done.stderr[-3000:]}"
        )
        return done

    def ask(self, *command: str, text: str = "", timeout: float = PATIENCE) -> str:
        """Return what a command printed; AssertionError unless it went well."""
        return self.run(*command, text=text, timeout=timeout, check=True).stdout

    def begin(
        self, name: str, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program whose output is in a file; ``log`` returns it."""
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                self.inside(*command, environment=environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append(process)
        return process

    def log(self, name: str) -> str:
        path = self.home / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def write(self, name: str, text: str | bytes) -> str:
        """Write a file that is seen inside by the same path; return that."""
        path = self.home / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    # ---- its end

    def close(self) -> None:
        if self._init:
            if self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            for pipe in (self._init.stdin, self._init.stdout):
                assert pipe
                pipe.close()
            self._init.wait(PATIENCE)
        for process in self._running:
            process.wait(PATIENCE)
        left = [str(cgroup) for cgroup in self._cgroups if not _removed(cgroup)]
        shutil.rmtree(self.home, ignore_errors=True)
        assert not left, f"control groups are left: {left}"


def hierarchies() -> dict[str, Path]:
    """Return this process's own control group in each hierarchy, by the name of its mount."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=") or "unified"
        root = _CGROUPS / name if (_CGROUPS / name).is_dir() else _CGROUPS
        found[name] = root / path.lstrip("/")
    return found


def _mounted_at(cgroup: Path) -> Path:
    parts = cgroup.relative_to(_CGROUPS).parts
    is_hybrid = (_CGROUPS / "unified").is_dir()
    return _CGROUPS / parts[0] if is_hybrid and parts else _CGROUPS


def _options(place: Path) -> str:
    """Return the mount options of a hierarchy; empty for the unified one."""
    if place.name in {"unified", _CGROUPS.name}:
        return ""
    return "none,name=systemd" if place.name == "systemd" else place.name


def _make(cgroup: Path) -> None:
    cgroup.mkdir(exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group, which takes nobody then
        if (mine := cgroup / name).exists() and (theirs := cgroup.parent / name).exists():
            mine.write_text(theirs.read_text())


def _removed(cgroup: Path) -> bool:
    """Remove a control group with those in it, of which the innermost go first. Their processes
    have been killed by the kernel, with their namespace."""
    deadline = time.monotonic() + 10
    while cgroup.exists() and time.monotonic() < deadline:
        for directory in sorted((cgroup, *cgroup.rglob("*/")), key=lambda one: -len(one.parts)):
            with contextlib.suppress(OSError):
                directory.rmdir()
        time.sleep(0.02)
    return not cgroup.exists()
