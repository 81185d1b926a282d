"""The two Debian trees of these tests: of the machine that runs vagrant, and of the box that it is
given, which has what a public one has: a kernel, ssh, the user vagrant, and nothing of meshd's.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.host.tree import adapt_host, debian_tree

HYPERVISOR: Final = (
    *("systemd", "systemd-sysv", "libpam-systemd", "dbus", "udev", "util-linux", "procps"),
    *("iproute2", "iptables", "ca-certificates", "dnsmasq-base", "openssh-client", "python3"),
    *("rsync", "tcpdump"),
    *("vagrant", "vagrant-libvirt", "libvirt-daemon-system", "qemu-system-x86", "qemu-utils"),
    *("e2fsprogs", "fdisk", "grub-common", "grub-pc-bin"),
)
MISSING: Final = ("dnsmasq-base", "iptables")
"""What meshd's package needs and a box has not: apt in the box gets it from a directory there."""
BOX: Final = (
    *("linux-image-amd64", "initramfs-tools", "zstd", "apparmor", "systemd", "systemd-sysv"),
    *("dbus", "udev", "kmod", "procps", "iproute2", "ifupdown", "isc-dhcp-client", "curl"),
    *("openssh-server", "sudo", "rsync", "python3", "libseccomp2", *MISSING),
)
_KEY: Final = "usr/share/rubygems-integration/all/gems/vagrant-*/keys/vagrant.pub"
_LOCAL: Final = "var/local/packages"
_FILES: Final = {
    "etc/machine-id": "",
    "etc/resolv.conf": "",
    "etc/hostname": "bookworm\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 bookworm\n",
    "etc/fstab": "LABEL=root / ext4 errors=remount-ro 0 1\n",
    "etc/apt/sources.list": f"deb [trusted=yes] file:/{_LOCAL} ./\n",
    "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
    "etc/network/interfaces": (
        "source /etc/network/interfaces.d/*\n"
        "auto lo\niface lo inet loopback\n"
        "allow-hotplug eth0\niface eth0 inet dhcp\n"
    ),
    # What is emulated needs no other driver, and loading them all takes it half a minute.
    "etc/initramfs-tools/conf.d/modules": "MODULES=list\n",
    "etc/initramfs-tools/modules": "virtio_blk\nvirtio_pci\next4\n",
    "boot/grub/grub.cfg": (
        "linux /vmlinuz root=LABEL=root ro net.ifnames=0 console=ttyS0\ninitrd /initrd.img\nboot\n"
    ),
}
_PATIENCE: Final = 300.0


def hypervisor() -> Path:
    return debian_tree("vagrant-root", HYPERVISOR, adapt_host, ())


def box() -> Path:
    return debian_tree("vagrant-box", BOX, _adapt, (_LOCAL, repr(_FILES)))


def _adapt(tree: Path) -> None:
    for name, text in _FILES.items():
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
    (tree / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    (tree / "var/log/journal").mkdir(exist_ok=True)
    _in(tree, "update-initramfs", "-u")
    _in(tree, "useradd", "--create-home", "--shell", "/bin/bash", "vagrant")
    _authorize(tree)
    _in(tree, "dpkg", "--purge", *MISSING)
    _fetch(tree / _LOCAL)


def _authorize(tree: Path) -> None:
    """Who has the key that vagrant brings along, and replaces when it has come in."""
    owned = ("-o", "vagrant", "-g", "vagrant")
    _in(tree, "install", "-d", "-m", "0700", *owned, "/home/vagrant/.ssh")
    (key,) = hypervisor().glob(_KEY)
    shutil.copy(key, tree / "tmp/key")
    _in(tree, "install", "-m", "0600", *owned, "/tmp/key", "/home/vagrant/.ssh/authorized_keys")


def _fetch(place: Path) -> None:
    """An archive for apt, of what is missing."""
    place.mkdir()
    place.chmod(0o777)  # apt downloads as a user of its own
    _run("apt-get", "download", "-qq", *MISSING, cwd=place)
    place.chmod(0o755)
    (place / "Packages").write_text(_run("dpkg-scanpackages", ".", cwd=place))


def _in(tree: Path, *command: str) -> None:
    _run("chroot", str(tree), "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command)


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_PATIENCE, cwd=cwd
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
    return done.stdout
