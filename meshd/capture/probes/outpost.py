"""A namespace beside the host's, from which services of the host are reached as from outside.

It has neither a name nor a process: it lives as long as this process holds it open, and the wire to
it goes with it. So nothing is left of either, however the process ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Generator
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules import inside

INTERFACE: Final = "meshd-probe"
"""The host's end of the wire."""
SOURCES: Final = {4: "169.254.7.125", 6: "fd16:9254:7127:1337::7d"}
_HOSTS: Final = {4: "169.254.7.124", 6: "fd16:9254:7127:1337::7c"}
_LENGTH: Final = {4: 31, 6: 127}
_OUTSIDE: Final = "outside"
_PATIENCE: Final = 5.0
"""Seconds for ``ip``."""


class Outpost:
    """Made at the first use."""

    def __init__(self) -> None:
        self._descriptor = -1
        self.is_doubted = False
        """Something could not be sent from it: it is to be closed, and made anew."""

    def close(self) -> None:
        self.is_doubted = False
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def open(self) -> None:
        """Blocks for some milliseconds at the first time. Raises SystemRefusedError."""
        if self._descriptor >= 0:
            return
        made = inside.new_namespace()
        try:
            with contextlib.suppress(SystemRefusedError):  # mostly there is none
                if _ip(made, f"link show dev {INTERFACE} type veth\n"):
                    _ip(made, f"link delete dev {INTERFACE}\n")  # another process left it
            _ip(made, _host_batch(made))
            with inside.entered_by(made):
                _ip(made, _outside_batch())
        except BaseException:
            os.close(made)
            raise
        self._descriptor = made
        with contextlib.suppress(SystemRefusedError):  # where IPv6 is switched off
            _ip(made, _ipv6_batch(_HOSTS[6], INTERFACE))
            with inside.entered_by(made):
                _ip(made, _ipv6_batch(SOURCES[6], _OUTSIDE) + _route(6))

    @contextlib.contextmanager
    def entered(self) -> Generator[None]:
        """Enter the namespace within the block, which must not await."""
        with inside.entered_by(self._descriptor):
            yield


def _host_batch(namespace: int) -> str:
    """Return what makes the wire, without multicast or an address by which the host is known."""
    return f"""\
link add {INTERFACE} type veth peer name {_OUTSIDE} netns /proc/self/fd/{namespace}
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
    return f"address add {address}/{_LENGTH[6]} dev {interface} nodad\n"


def _route(version: int) -> str:
    return f"route add default via {_HOSTS[version]} dev {_OUTSIDE}\n"


def _ip(namespace: int, batch: str) -> str:
    """Return what ``ip`` prints."""
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
        raise SystemRefusedError(f"no wire to probe services of the host: {error}") from error
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise SystemRefusedError(f"no wire to probe services of the host: ip says: {reason}")
    return done.stdout
