"""How many packets of this namespace rules with the target NFLOG have seen: the kernel numbers them
for each group, whoever reads them or not. Linux's ``nfnetlink_log.h`` has the numbers."""

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
"""Bytes that wait in the socket. What does not fit is lost but for its number."""
_READS: Final = 64
"""At most at a time: a workload that may write rules can log as much as it likes."""
_PAUSE: Final = 2.0
"""Seconds between reads, in which the kernel gathers what it tells as well."""


class PacketCounts:
    """Of the groups that are counted in the namespace in which it was made, wherever the thread is
    afterwards. ``changed`` is called at most once in some seconds, and never while nothing is
    logged."""

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
        """From now on this one, too. Returns how many there were. Raises SystemRefusedError: the
        kernel has no such log, or somebody else reads it."""
        if group in self.by_group:
            return self.by_group[group]
        self._socket.send(nfnetlink.message(_CONFIG, _ASKING, 0, group, _SETTINGS))
        if code := self._answer():
            raise SystemRefusedError(f"cannot count packets of group {group}: {os.strerror(code)}")
        return self.by_group.setdefault(group, 0)

    def _answer(self) -> int:
        """What the kernel says to a request, which it has done by then."""
        try:
            return nfnetlink.error_code(self._socket.recv(1 << 16, socket.MSG_DONTWAIT))
        except OSError:
            return 0  # so many packets of other groups that the answer was lost

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
    """Of each packet that these messages tell of, its group and how many there were with it."""
    for kind, body in nfnetlink.messages(part):
        if kind == _PACKET:
            (group,) = struct.unpack_from(">2xH", body)
            found = dict(nfnetlink.attributes(body[nfnetlink.GENERIC_SIZE :]))
            yield group, int.from_bytes(found.get(_NUMBER, b"")) + 1
