"""Makes a namespace beside the host's, from which probes reach services as from outside.

The namespace has neither a name nor a process: it exists as long as this process holds it open, and
so does the veth pair to it. So nothing is left of either, however the process ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules import inside

INTERFACE: Final = "meshd-probe"
"""The host's end of the veth pair."""
SOURCES: Final = {4: "169.254.7.125", 6: "fd16:9254:7127:1337::7d"}
_HOSTS: Final = {4: "169.254.7.124", 6: "fd16:9254:7127:1337::7c"}
_LENGTH: Final = {4: 31, 6: 127}
_OUTSIDE: Final = "outside"
_WITHOUT_IPV6: Final = Path(f"/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6")
_PATIENCE: Final = 5.0
"""Seconds that ``ip`` may take."""


class Outpost:
    """The namespace, which is made at its first use."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._has_ipv6 = False
        self.is_doubted = False
        """Whether sending has failed: the namespace must be closed and made anew."""

    def close(self) -> None:
        self.is_doubted = False
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def open(self) -> None:
        """Make the namespace unless it exists. This blocks for some milliseconds.

        Raises SystemRefusedError if the kernel or ``ip`` refuses.
        """
        if self._descriptor >= 0:
            return
        made = inside.new_namespace()
        try:
            with contextlib.suppress(SystemRefusedError):  # mostly there is no such interface
                if _ip(made, f"link show dev {INTERFACE} type veth\n"):
                    _ip(made, f"link delete dev {INTERFACE}\n")  # another process left it
            _ip(made, _wire_batch(made))
            _generate_no_address(made, INTERFACE)
            _ip(made, _host_batch())
            with inside.entered_by(made):
                _generate_no_address(made, _OUTSIDE)
                _ip(made, _outside_batch())
        except BaseException:
            os.close(made)
            raise
        self._descriptor = made
        self._has_ipv6 = False
        with contextlib.suppress(SystemRefusedError):  # where IPv6 is switched off
            _ip(made, _ipv6_batch(_HOSTS[6], INTERFACE))
            with inside.entered_by(made):
                _ip(made, _ipv6_batch(SOURCES[6], _OUTSIDE) + _route(6))
            self._has_ipv6 = True

    def lack(self, version: int) -> str:
        """Return why this version of IP cannot be probed from here; empty if it can.

        Marks the namespace as doubted if a new one might do better.
        """
        if version == 4 or self._has_ipv6:
            return ""
        if _is_off(_WITHOUT_IPV6):
            return f"IPv6 is switched off on {INTERFACE}: {_WITHOUT_IPV6.name} is set there"
        self.is_doubted = True  # the setting was on, and is off now
        return f"IPv6 was switched off on {INTERFACE}"

    @contextlib.contextmanager
    def entered(self) -> Generator[None]:
        """Enter the namespace within the block, which must not await."""
        with inside.entered_by(self._descriptor):
            yield


def _wire_batch(namespace: int) -> str:
    return f"link add {INTERFACE} type veth peer name {_OUTSIDE} netns /proc/self/fd/{namespace}\n"


def _generate_no_address(namespace: int, interface: str) -> None:
    """Keep the kernel from adding a link-local address by itself.

    The address would appear seconds later, and change the host's routes unexpectedly.
    """
    with contextlib.suppress(SystemRefusedError):  # a kernel without IPv6
        _ip(namespace, f"link set {interface} addrgenmode none\n")


def _host_batch() -> str:
    """Return the commands for the host's end, without multicast.

    Its address has link scope, so that the host is not known by it.
    """
    return f"""\
address add {_HOSTS[4]}/{_LENGTH[4]} dev {INTERFACE} scope link
link set {INTERFACE} multicast off up
"""


def _outside_batch() -> str:
    return f"""\
link set lo up
address add {SOURCES[4]}/{_LENGTH[4]} dev {_OUTSIDE}
link set {_OUTSIDE} up
{_route(4)}"""


def _ipv6_batch(address: str, interface: str) -> str:
    """Return the commands that add an address, and a link-local one for neighbour discovery."""
    local = "fe80::" + address.rpartition(":")[2]
    return "".join(
        f"address add {one} dev {interface} nodad\n"
        for one in (f"{address}/{_LENGTH[6]}", f"{local}/64")
    )


def _route(version: int) -> str:
    return f"route add default via {_HOSTS[version]} dev {_OUTSIDE}\n"


def _is_off(setting: Path) -> bool:
    """Return whether IPv6 is switched off on an interface, or in the whole kernel."""
    try:
        return setting.read_text(encoding="ascii").strip() != "0"
    except OSError:
        return True


def _ip(namespace: int, batch: str) -> str:
    """Run ``ip`` and return its output. Raises SystemRefusedError if it fails or takes too long."""
    try:
        done = subprocess.run(
            ["ip", "-batch", "-"],
            input=batch,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(namespace,),
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise SystemRefusedError(
            f"cannot make the veth pair to probe services of the host: {error}"
        ) from error
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise SystemRefusedError(
            f"cannot make the veth pair to probe services of the host: ip reports: {reason}"
        )
    return done.stdout
