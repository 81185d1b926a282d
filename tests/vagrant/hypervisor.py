"""The machine that runs vagrant: a booted host with libvirt and QEMU, which emulates the processor.

The virtual machines, their networks and their disks end with it.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Generator
from typing import Final

from tests.host import listening
from tests.host.machine import Machine
from tests.host.tree import CHECKOUT
from tests.host.wires import Wires
from tests.vagrant import trees
from tests.waiting import eventually

PATIENCE: Final = 3600.0
"""Emulated, a machine is twenty times slower than the processor is, and it shares that."""
PROJECT: Final = "/srv/meshd"
NAME: Final = "debian/bookworm64"
"""The public box that the Vagrantfile names; here it is ours."""
_HOME: Final = "/var/lib/vagrant"
_FILES: Final = {
    # Neither cgroups nor device nodes are libvirt's to make in a container.
    "/etc/libvirt/qemu.conf": (
        'cgroup_controllers = []\nnamespaces = []\nsecurity_driver = "none"\nremember_owner = 0\n'
    ),
    "/etc/tmpfiles.d/tun.conf": "d /dev/net 0755\nc /dev/net/tun 0666 - - - 10:200\n",
    # What a user's own Vagrantfile may say of all machines.
    f"{_HOME}/Vagrantfile": """\
Vagrant.configure("2") do |config|
  config.vm.boot_timeout = 1800
  config.vm.provider "libvirt" do |machine|
    machine.driver = "qemu"
    machine.cpu_mode = "maximum"
  end
end
""",
}
_ENVIRONMENT: Final = {
    "HOME": "/root",
    "VAGRANT_HOME": _HOME,
    "VAGRANT_DEFAULT_PROVIDER": "libvirt",
    "VAGRANT_CHECKPOINT_DISABLE": "1",
    "VAGRANT_NO_COLOR": "1",
}


class Hypervisor:
    def __init__(self, wires: Wires) -> None:
        box = f"--bind-ro={trees.box()}:/srv/tree"
        self.machine = Machine("hypervisor", 200, trees.hypervisor(), wires, (box,))
        for name, text in _FILES.items():
            self.machine.write(name, text)
        project = self.machine.root / PROJECT.lstrip("/")
        for part in ("vagrant", "dist"):
            shutil.copytree(CHECKOUT / part, project / part)
        shutil.copy(CHECKOUT / "Vagrantfile", project)

    def boot(self) -> None:
        self.machine.boot()
        box = (CHECKOUT / "tests/vagrant/box.sh").read_text()
        self.machine.ask("bash", "-s", "/srv/tree", "/srv/box", text=box, timeout=PATIENCE)
        self.vagrant("box", "add", "--name", NAME, "/srv/box")
        self.machine.ask("rm", "/srv/box")

    def close(self) -> None:
        self.machine.close()

    def vagrant(self, *words: str, text: str = "") -> str:
        """What it said; AssertionError with that unless it went well."""
        done = subprocess.run(
            self.machine.inside(
                *("env", f"--chdir={PROJECT}", "vagrant", *words, "--no-tty"),
                environment=_ENVIRONMENT,
            ),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, (
            f"vagrant {' '.join(words)}: {done.stdout[-3000:]}{done.stderr}"
        )
        return done.stdout

    def on(self, name: str, script: str) -> str:
        """What a script printed that root ran on a virtual machine, by ssh as a user would."""
        command = ("ssh", name, "--command", "sudo bash -euo pipefail -s")
        return self.vagrant(*command, text=script)

    def reboot(self, name: str) -> None:
        """Until it lets somebody in again."""
        before = self._boot_id(name)
        with contextlib.suppress(AssertionError):  # it may end before it could say goodbye
            self.on(name, "systemctl reboot")
        eventually(lambda: self._boot_id(name) not in {"", before}, f"{name} booted", PATIENCE)

    def _boot_id(self, name: str) -> str:
        """Empty: nobody is let in."""
        with contextlib.suppress(AssertionError):
            return self.on(name, "cat /proc/sys/kernel/random/boot_id").strip()
        return ""

    @contextlib.contextmanager
    def overheard(self) -> Generator[list[bytes]]:
        """All TCP between the virtual machines, as it was on the wire; in the list after it."""
        which = "tcp and net 192.168.56.0/24 or net 198.18.0.0/16"
        with listening.overheard(self.machine, which, patience=PATIENCE) as heard:
            yield heard

    def packets(self, which: str) -> list[str]:
        """Those of the last time, as tcpdump prints them. ``which`` is a filter of its."""
        return self.machine.ask("tcpdump", "-n", "-r", listening.CAPTURE, which).splitlines()
