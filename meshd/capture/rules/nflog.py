"""Counts the packets that rules with the target NFLOG have seen in this namespace.

The kernel numbers the packets of each group, whether or not they are read. The numbers of the
protocol come from Linux's ``nfnetlink_log.h``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.capture.rules import nfnetlink

_ULOG: Final = 4  # NFNL_SUBSYS_ULOG
_CONFIG: Final = _ULOG << 8 | 1
_PACKET: Final = _ULOG << 8
_COMMAND, _MODE, _FLAGS = 1, 2, 6
_BIND: Final = b"\1"
_COPY_NOTHING: Final = struct.pack(">IBB", 0, 0, 0)
_SEQUENCE: Final = struct.pack(">H", 1)  # NFULNL_CFG_F_SEQ
_NUMBER: Final = 12  # NFULA_SEQ
_ASKING: Final = nfnetlink.NLM_F_REQUEST | nfnetlink.NLM_F_ACK
_SETTINGS: Final = b"".join(
    (
        nfnetlink.attribute(_COMMAND, _BIND),
        nfnetlink.attribute(_MODE, _COPY_NOTHING),
        nfnetlink.attribute(_FLAGS, _SEQUENCE),
    )
)
_BUFFER: Final = 8 * 1024
"""Bytes that the socket buffers. Of messages that do not fit, only their number is kept."""
_READS: Final = 64
"""The most reads at a time: a workload that may write rules can log any amount."""
_PAUSE: Final = 2.0
"""Seconds between reads, in which the kernel gathers messages as well."""


class PacketCounts:
    """Counts packets by group in the namespace in which the object was made.

    The object stays with that namespace, wherever the thread is afterwards. ``changed`` is called
    at most once in some seconds, and never while nothing is logged.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.by_group: dict[int, int] = {}
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._resuming: asyncio.TimerHandle | None = None
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, nfnetlink.NETLINK_NETFILTER
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((0, 0))
        self._listen()

    def close(self) -> None:
        if self._resuming:
            self._resuming.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def count(self, group: int) -> int:
        """Count a further group from now on, and return its packets so far.

        Raises SystemRefusedError if the kernel has no such log, or if another program reads it.
        """
        if group in self.by_group:
            return self.by_group[group]
        self._socket.send(nfnetlink.message(_CONFIG, _ASKING, 0, group, _SETTINGS))
        if code := self._answer():
            raise SystemRefusedError(f"cannot count packets of group {group}: {os.strerror(code)}")
        return self.by_group.setdefault(group, 0)

    def _answer(self) -> int:
        """Return the error code of a request, which the kernel has completed by now; 0: none."""
        try:
            return nfnetlink.error_code(self._socket.recv(1 << 16, socket.MSG_DONTWAIT))
        except OSError:
            return 0  # packets of other groups filled the buffer, so the answer was lost

    def _listen(self) -> None:
        self._loop.add_reader(self._socket, self._read)

    def _read(self) -> None:
        self._loop.remove_reader(self._socket)
        self._resuming = self._loop.call_later(_PAUSE, self._listen)
        before = dict(self.by_group)
        for _ in range(_READS):
            try:
                part = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                continue  # the buffer was full
            self._take(part)
        if self.by_group != before:
            self._changed()

    def _take(self, part: bytes) -> None:
        self.by_group |= {group: count for group, count in counts(part) if group in self.by_group}


def counts(part: bytes) -> Iterator[tuple[int, int]]:
    """Yield the group of each packet in these messages, and the group's packets up to that one."""
    for kind, body in nfnetlink.messages(part):
        if kind == _PACKET:
            (group,) = struct.unpack_from(">2xH", body)
            found = dict(nfnetlink.attributes(body[nfnetlink.GENERIC_SIZE :]))
            yield group, int.from_bytes(found.get(_NUMBER, b"")) + 1
