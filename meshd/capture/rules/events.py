"""The kernel's events about changed rules in one network namespace, with the author of each change.

nf_tables announces each of its changes by netlink, with the process that made it. The legacy tables
announce nothing: callers are told whether there are any, and have to look at them.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from meshd.capture.pods.followed import Followed
from meshd.capture.pods.namespaces import Pin
from meshd.capture.rules import nfnetlink
from meshd.capture.rules.fingerprint import Fingerprint
from meshd.capture.rules.nfnetlink import Change
from meshd.capture.rules.tables import LEGACY_NAMES

_REMEMBERED: Final = 64
"""Changes of which it is known who made them."""
_LONGEST_LIST: Final = 4096


class RuleEvents:
    """Calls back at each change of nf_tables rules in the namespace in which it was made."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._changes: collections.deque[Change] = collections.deque(maxlen=_REMEMBERED)
        self._legacy = tuple(_open_names())
        self._socket = nfnetlink.listening_socket()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for descriptor in self._legacy:
            os.close(descriptor)

    @property
    def has_legacy_tables(self) -> bool:
        """Return whether there are tables of whose changes the kernel does not tell."""
        return any(os.pread(descriptor, _LONGEST_LIST, 0) for descriptor in self._legacy)

    def between(self, before: Fingerprint, now: Fingerprint) -> tuple[Change, ...]:
        """Return the changes that led from one fingerprint to the other, as far as the kernel
        told."""
        self._take()
        first, last = before.generation + 1, now.generation
        return tuple(one for one in self._changes if first <= one.generation <= last)

    def _read(self) -> None:
        self._take()
        self._changed()

    def _take(self) -> None:
        # It ends when nothing is left, or when there was more than the socket could take.
        with contextlib.suppress(OSError):
            while part := self._socket.recv(1 << 16):
                self._changes.extend(nfnetlink.changes(part))


def _open_names() -> Iterator[int]:
    for path in LEGACY_NAMES.values():
        with contextlib.suppress(OSError):
            yield os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class Rules:
    """The events of the namespace to which a workload is pinned."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._followed = Followed(lambda: RuleEvents(changed))

    def follow(self, pin: Pin | None) -> None:
        """Follow this namespace from now on. Raises NotReadyError if it is gone."""
        self._followed.follow(pin)

    @property
    def has_legacy_tables(self) -> bool:
        events = self._followed.watch
        return events is not None and events.has_legacy_tables

    def between(self, before: Fingerprint, now: Fingerprint) -> tuple[Change, ...]:
        events = self._followed.watch
        return events.between(before, now) if events else ()
