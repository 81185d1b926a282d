"""A host that boots: Debian in systemd-nspawn, with a cgroup, a disk and an address of its own.

Nothing of it remains after ``close``. Never is it given CAP_SYS_TIME: the clock is the machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.host.tree import CHECKOUT, NETWORK
from tests.host.wires import BRIDGE, Wires, address
from tests.waiting import PATIENCE, eventually

_HIERARCHIES: Final = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))
_REBOOT: Final = 133
"""nspawn's exit status when the host asked to be booted again."""
_PATIENCE: Final = 2 * PATIENCE
_PATH: Final = "/opt/meshd/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOWERED: Final = ("setpriv", "--bounding-set=-sys_time", "--inh-caps=-sys_time")
Done = subprocess.CompletedProcess[str]


class Machine:
    """``number`` gives its address. ``tree`` is shared, and never written to. ``options`` are
    nspawn's, for what not every host has."""

    def __init__(
        self,
        name: str,
        number: int,
        tree: Path,
        wires: Wires,
        options: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self._options = options
        self.address = address(number)
        self._wires = wires
        self._id = f"mt{os.getpid()}-{name}"
        self._work = Path(tempfile.mkdtemp(prefix=f"meshd-host-{name}-", dir="/var/tmp"))
        self.root = self._work / "root"
        self._cgroups = [hierarchy / self._id for hierarchy in _HIERARCHIES]
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.leader = 0
        self._mount(tree)

    # ---- its disk

    def _mount(self, tree: Path) -> None:
        for name in ("upper", "work", "root"):
            (self._work / name).mkdir()
        options = f"lowerdir={tree},upperdir={self._work}/upper,workdir={self._work}/work"
        command = ["mount", "-t", "overlay", "-o", options, "overlay", str(self.root)]
        subprocess.run(command, check=True)
        self.write("/etc/hostname", f"{self.name}\n")
        self.write("/etc/hosts", f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        network = f"{NETWORK}Address={self.address}/22\nGateway=198.18.243.254\n"
        self.write("/etc/systemd/network/10-host0.network", network)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def install(self) -> None:
        """meshd as a package would: the same units and settings, the checkout's own code."""
        (self.root / "opt").mkdir(exist_ok=True)
        (self.root / "opt/meshd").symlink_to(CHECKOUT / ".venv")
        self._show_checkout()
        units = CHECKOUT / "systemd"
        for unit in sorted(units.glob("*.*")):
            if unit.is_file():
                self.write(f"/lib/systemd/system/{unit.name}", unit.read_text())
        for directory in ("sysusers.d", "tmpfiles.d", "sysctl.d"):
            for file in sorted((units / directory).glob("*.conf")):
                self.write(f"/usr/lib/{directory}/{file.name}", file.read_text())
        # The package's scripts do this, and systemd itself makes the directories at each boot.
        for program in ("systemd-sysusers", "systemd-tmpfiles --create"):
            words = [*program.split(), f"--root={self.root}", "meshd.conf"]
            subprocess.run(words, check=True, capture_output=True, text=True)
        for drop_in in sorted((CHECKOUT / "etc").glob("*.conf.d/*")) + sorted(
            (CHECKOUT / "etc").glob("rsyslog.d/*")
        ):
            self.write(f"/etc/{self._place(drop_in)}", drop_in.read_text())

    def _show_checkout(self) -> None:
        """The service's sandbox hides directories in which no package would put a program."""
        top = CHECKOUT.parts[1]
        if top not in {"root", "home", "tmp"}:
            return
        shown = "PrivateTmp=no" if top == "tmp" else "ProtectHome=no"
        self.write("/etc/systemd/system/meshd.service.d/checkout.conf", f"[Service]\n{shown}\n")
        if top != "tmp":
            for parent in CHECKOUT.parents[:-1]:
                place = self.root / str(parent).lstrip("/")
                place.mkdir(parents=True, exist_ok=True)
                place.chmod(0o755)

    @staticmethod
    def _place(drop_in: Path) -> str:
        directory = drop_in.parent.name
        return f"{'' if directory == 'rsyslog.d' else 'systemd/'}{directory}/{drop_in.name}"

    # ---- its life

    def boot(self) -> None:
        """Until systemd says that it runs, and nothing failed."""
        for cgroup in self._cgroups:
            cgroup.mkdir(exist_ok=True)
        join = "".join(f"echo $$ > {cgroup}/cgroup.procs; " for cgroup in self._cgroups)
        checkout = (f"--bind-ro={CHECKOUT / part}" for part in (".venv", "meshd", "tests/host"))
        nspawn = [
            *("nsenter", f"--net={self._wires.path}", *_LOWERED, "--"),
            *("systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}"),
            *(f"--machine={self._id}", "--register=no", "--keep-unit", "--console=pipe"),
            *("--drop-capability=CAP_SYS_TIME", "--link-journal=no", "--resolv-conf=off"),
            # As on a host that is no container.
            "--system-call-filter=pidfd_getfd",
            *("--timezone=off", f"--network-bridge={BRIDGE}", *checkout),
            *self._options,
        ]
        with (self._work / "console.log").open("ab") as console:
            self._nspawn = subprocess.Popen(
                ["sh", "-c", f'{join} exec "$@"', "sh", *nspawn],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={"PATH": os.environ["PATH"], "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                start_new_session=True,
            )
        self.leader = eventually(self._find_leader, f"{self.name} begins to boot", _PATIENCE)
        eventually(
            lambda: self.run("test", "-S", "/run/systemd/private").returncode == 0,
            f"systemd runs in {self.name}",
            _PATIENCE,
        )
        state = self.run("systemctl", "is-system-running", "--wait").stdout.strip()
        failed = self.run("systemctl", "--failed", "--no-legend", "--plain").stdout
        assert state == "running", f"{self.name} is {state}: {failed}\n{self.console[-3000:]}"

    def _find_leader(self) -> int:
        assert self._nspawn
        assert self._nspawn.poll() is None, self.console[-3000:]
        for child in _children(self._nspawn.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() in {"systemd", "init"}:
                    return child
        return 0

    @property
    def console(self) -> str:
        return (self._work / "console.log").read_text(errors="replace")

    def reboot(self) -> None:
        """As an administrator does it."""
        self.run("systemctl", "reboot", check=False)
        assert self._ended() == _REBOOT, self.console[-3000:]
        self.boot()

    def cut_power(self) -> None:
        os.kill(self.leader, signal.SIGKILL)
        self._ended()

    def _ended(self) -> int:
        assert self._nspawn
        status = self._nspawn.wait(_PATIENCE)
        self._nspawn, self.leader = None, 0
        return status

    def close(self) -> None:
        if self._nspawn:
            if self._nspawn.poll() is None and self.leader:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.leader, signal.SIGKILL)
            try:
                self._nspawn.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
        for cgroup in self._cgroups:
            _remove_cgroup(cgroup)
        subprocess.run(["umount", "--lazy", str(self.root)], check=False)
        shutil.rmtree(self._work, ignore_errors=True)

    # ---- inside

    def inside(self, *command: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs a command in the host."""
        given = {"PATH": _PATH, "LC_ALL": "C.UTF-8"} | dict(environment or {})
        return [
            *(*_LOWERED, "--", "nsenter", f"--target={self.leader}", "--all", "--"),
            *("env", "-i", *(f"{name}={value}" for name, value in given.items())),
            *command,
        ]

    def run(
        self, *command: str, text: str = "", timeout: float = _PATIENCE, check: bool = False
    ) -> Done:
        done = subprocess.run(
            self.inside(*command),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            cwd="/",
        )
        assert not check or done.returncode == 0, (
            f"{' '.join(command)}: status {done.returncode}: {done.stdout[-1500:]}"
            f"{done.stderr[-1500:]}"
        )
        return done

    def ask(self, *command: str, text: str = "", timeout: float = _PATIENCE) -> str:
        """What it printed; AssertionError unless it went well."""
        return self.run(*command, text=text, timeout=timeout, check=True).stdout

    def begin(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.inside(*command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        lines = self.ask("journalctl", "--output=json", "--all", "--boot", *matches).splitlines()
        return [json.loads(line) for line in lines]


def now() -> str:
    """The option of journalctl for what comes from now on; hosts have this machine's clock."""
    return f"--since=@{int(time.time())}"


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield int(text)
            yield from _children(int(text))


def _remove_cgroup(cgroup: Path) -> None:
    """The innermost first; what is left in it is killed by the kernel with its namespace."""
    if not cgroup.exists():
        return
    deadline = time.monotonic() + 5
    for directory in sorted((cgroup, *cgroup.rglob("*/")), key=lambda path: -len(path.parts)):
        while True:
            try:
                directory.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
