"""Differences under systemd: the proxies outlive the service, and so do their mounts.

The unit names a slice (``MESHD_PROXY_SLICE``), in which each proxy gets a scope of its own. systemd
then leaves them alone when it stops or restarts the service, and the next supervisor adopts them.

The sandbox of a unit is a mount namespace, made anew at each start, and mounts made in one are not
seen in another: not the pinned namespaces that proxies are to listen in. So a supervisor that finds
proxies goes to live where they do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.supervisor import record
from meshd.supervisor.home import Home

SLICE: Final = "MESHD_PROXY_SLICE"
"""Environment variable."""
_CLONE_NEWNS: Final = 0x00020000


def proxy_slice(environment: Mapping[str, str]) -> str:
    """Return the slice of the proxies; empty if proxies end with the supervisor."""
    return environment.get(SLICE, "")


def scoped(slice_name: str, name: str, command: Sequence[str]) -> tuple[str, ...]:
    """Return the command in a scope of its own, systemd-run(1). It stays our child."""
    # Never a name that systemd still knows from the process before.
    unit = f"meshd-{name}-{secrets.token_hex(4)}"
    return (
        *("systemd-run", "--quiet", "--scope", "--collect", f"--slice={slice_name}"),
        *(f"--unit={unit}", f"--description=Proxy {name} of the service mesh", "--"),
        *command,
    )


async def run_outside(command: Sequence[str], capabilities: Sequence[str]) -> str:
    """Run the command as a service of its own; return why that failed, or nothing.

    Our own sandbox does not allow what the command does. The sandbox of the new service allows no
    more than that.
    """
    process = await asyncio.create_subprocess_exec(
        *("systemd-run", "--quiet", "--wait", "--collect", "--pipe"),
        f"--property=CapabilityBoundingSet={' '.join(capabilities)}",
        *("--property=NoNewPrivileges=yes", "--property=ProtectSystem=strict", "--"),
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await process.communicate()
    return told.decode(errors="replace").strip() if process.returncode else ""


def rejoin_proxies(home: Home) -> None:
    """Enter the mount namespace of those that run. To be done before any thread is started.

    Raises SystemRefusedError.
    """
    for entry in record.read(home):
        if entry.proxy:
            _enter_mounts_of(entry.identity.pid)
            return


def _enter_mounts_of(pid: int) -> None:
    try:
        descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # it has just ended
    except OSError as error:
        raise SystemRefusedError(f"mounts of proxy {pid}: {error.strerror}") from None
    try:
        if os.fstat(descriptor).st_ino == os.stat("/proc/self/ns/mnt").st_ino:  # noqa: PTH116
            return
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNS) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise SystemRefusedError(f"mounts of proxy {pid}: cannot be entered: {reason}")
    finally:
        os.close(descriptor)
