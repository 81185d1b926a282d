"""The Debian tree that all hosts of these tests are made of: built once, kept in build/."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[2]
SUITE: Final = "bookworm"
PACKAGES: Final = (
    *("systemd", "systemd-sysv", "dbus", "udev", "rsyslog", "util-linux", "procps"),
    *("iproute2", "iptables", "tcpdump", "curl", "ca-certificates"),
    *("python3", "libsystemd0", "libseccomp2", "dnsmasq-base"),
)
_REVISION: Final = "1"
"""To be raised when what is done here to a tree changes."""
_PATIENCE: Final = 600.0
NETWORK: Final = """\
[Match]
Name=host0
[Network]
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


def base_tree() -> Path:
    return debian_tree("host-root", PACKAGES, adapt_host, (_REVISION, NETWORK))


def debian_tree(
    name: str, packages: Sequence[str], adapt: Callable[[Path], None], contents: tuple[str, ...]
) -> Path:
    """Where it is; it is built if nobody has yet. Takes a minute then. ``contents`` is all that
    decides, beside the packages, what becomes of it."""
    key = hashlib.sha256(repr((SUITE, packages, *contents)).encode()).hexdigest()[:12]
    tree = CHECKOUT / "build" / f"{name}-{key}"
    tree.parent.mkdir(exist_ok=True)
    with (tree.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            _build(tree, packages, adapt)
    return tree


def _build(tree: Path, packages: Sequence[str], adapt: Callable[[Path], None]) -> None:
    new = tree.with_name(f"{tree.name}.new")
    _remove(new)
    done = subprocess.run(
        [
            *("debootstrap", "--variant=minbase", f"--include={','.join(packages)}"),
            *(SUITE, str(new), mirror()),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )
    assert done.returncode == 0, f"debootstrap: {done.stdout[-1500:]}{done.stderr[-500:]}"
    adapt(new)
    new.rename(tree)


def _remove(tree: Path) -> None:
    """A build that was killed leaves the machine's own /proc and /sys mounted in it."""
    for line in reversed(Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()):
        if (mounted := line.split(" ")[1]).startswith(f"{tree}/"):
            subprocess.run(["umount", "--lazy", mounted], check=True)
    shutil.rmtree(tree, ignore_errors=True)


def mirror() -> str:
    """The one that this machine's apt takes the suite from."""
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    uris = [uri for uri, _, release in (line.partition(" ") for line in found) if release == SUITE]
    assert uris, f"apt has no lists of {SUITE}: run apt-get update"
    return uris[0].rstrip("/")


def adapt_host(tree: Path) -> None:
    """Each host is to get an id of its own, and its address from a file that it finds at boot."""
    (tree / "etc/machine-id").write_text("")
    (tree / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").write_text("# no resolver is there\n")
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
    for unit in ("apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service"):
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    shutil.rmtree(tree / "var/cache/apt/archives", ignore_errors=True)
