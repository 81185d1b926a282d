"""Workloads that open more new connections than they may: how many the kernel drops, since when,
and what is said of it.

The kernel tells by itself (see ``nflog``), so that nothing is read while no workload is limited.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.base.moments import rfc3339
from meshd.capture.host.rules import HostWorkload
from meshd.capture.pods.followed import Followed
from meshd.capture.pods.namespaces import Pin
from meshd.capture.rules.nflog import PacketCounts
from meshd.capture.rules.options import CONNECTIONS_ANNOTATION, CaptureOptions, received_rate
from meshd.model.interception import INBOUND_PORT, OUTBOUND_PORT
from meshd.model.workload import DroppedConnections

_QUIET: Final = 10.0
"""Seconds without a drop after which a workload is not limited any more."""
_SAID: Final = 300.0
"""Seconds between lines about one workload in the journal."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """Of one workload: at which ports of a proxy its new connections are counted."""

    uid: str
    outbound: int
    inbound: int
    rate: int
    """New connections a second that it may open; 0: any number."""


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What is known of one workload."""

    others: tuple[int, int] = (0, 0)
    """Counts, at the same ports, of those that had them before."""
    dropped: DroppedConnections = dataclasses.field(default_factory=DroppedConnections)
    last: float = -_QUIET
    """When the last drop was seen, by the monotonic clock."""
    said: float = -_SAID
    """When the journal said it last."""


def after(before: State, limit: Limit, counts: tuple[int, int], now: float, moment: str) -> State:
    """With these ``counts`` of connections opened and received; ``now`` by the monotonic clock,
    ``moment`` RFC 3339. Pure."""
    dropped = before.dropped
    opened, received = counts[0] - before.others[0], counts[1] - before.others[1]
    more_opened, more_received = opened > dropped.opened, received > dropped.received
    if not (more_opened or more_received):
        over = now - before.last >= _QUIET
        quiet = DroppedConnections(dropped.opened, dropped.received)
        return replace(before, dropped=quiet) if over else before
    text = dropped.limited or _limited(limit, moment, opens=more_opened)
    new = DroppedConnections(opened, received, text)
    return replace(before, dropped=new, last=now)


def _limited(limit: Limit, moment: str, *, opens: bool) -> str:
    rate = limit.rate if opens else received_rate(limit.rate)
    what = "opens" if opens else "is sent"
    return (
        f"it {what} more than {rate} new connections a second: since {moment} the kernel drops"
        " those above, and their clients wait; to raise the limit, set"
        f" capture.connections_per_second or the annotation {CONNECTIONS_ANNOTATION}"
    )


class Limited:
    """Of the workloads of the namespace in which it was made. ``changed`` is called when there
    is news of one, with its uid."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._counts = PacketCounts(self._look)
        self._limits: Mapping[str, Limit] = {}
        self._states: dict[str, State] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._complained = False

    def close(self) -> None:
        if self._looking:
            self._looking.cancel()
        self._counts.close()

    def of(self, uid: str) -> DroppedConnections:
        state = self._states.get(uid)
        return state.dropped if state else DroppedConnections()

    def watch(self, limits: Iterable[Limit]) -> bool:
        """The whole of those that there are. False: the kernel cannot count what it drops."""
        self._limits = {limit.uid: limit for limit in limits if limit.rate}
        self._states = {uid: one for uid, one in self._states.items() if uid in self._limits}
        try:
            for limit in self._limits.values():
                before = self._counts.count(limit.outbound), self._counts.count(limit.inbound)
                self._states.setdefault(limit.uid, State(before))
        except SystemRefusedError as error:
            self._complain(str(error))
            return False
        return True

    def counted(self, services: Sequence[HostWorkload]) -> tuple[HostWorkload, ...]:
        """The same services, as far as the kernel can count."""
        can_count = self.watch(
            Limit(one.uid, one.outbound_port, one.inbound_port, one.options.connection_rate)
            for one in services
        )
        return tuple(
            replace(one, options=replace(one.options, drops_logged=can_count)) for one in services
        )

    def _complain(self, problem: str) -> None:
        """Once: it is the kernel's, and costs nothing but that nobody hears of the drops."""
        if not self._complained:
            fields = {"MESHD_EVENT": "connection-limit"}
            _log.warning("connections above a limit are dropped unseen: %s", problem, extra=fields)
        self._complained = True

    def _look(self) -> None:
        now, moment, counts = time.monotonic(), rfc3339(time.time()), self._counts.by_group
        for uid, before in tuple(self._states.items()):
            limit = self._limits[uid]
            both = counts[limit.outbound], counts[limit.inbound]
            state = after(before, limit, both, now, moment)
            if state != before:
                self._states[uid] = _say(uid, state, now)
                self._changed(uid)
        if self._looking:
            self._looking.cancel()
            self._looking = None
        if any(state.dropped.limited for state in self._states.values()):
            self._looking = self._loop.call_later(_QUIET, self._look)


def _say(uid: str, state: State, now: float) -> State:
    """In the journal, seldom."""
    if not state.dropped.limited or now - state.said < _SAID:
        return state
    fields = {"MESHD_WORKLOAD": uid, "MESHD_EVENT": "connection-limit"}
    _log.warning("workload %s: %s", uid, state.dropped.limited, extra=fields)
    return replace(state, said=now)


class OwnLimit:
    """Of one workload, in whichever namespace it is pinned to. ``changed``: see ``Limited``."""

    def __init__(self, uid: str, changed: Callable[[str], None]) -> None:
        self._uid = uid
        self._followed = Followed(lambda: Limited(changed))

    def follow(self, pin: Pin | None) -> None:
        """From now on those of this namespace. Raises NotReadyError when it is gone."""
        self._followed.follow(pin)

    @property
    def dropped(self) -> DroppedConnections:
        limited = self._followed.watch
        return limited.of(self._uid) if limited else DroppedConnections()

    def counted(self, options: CaptureOptions) -> CaptureOptions:
        """The same, as far as the kernel can count."""
        limited = self._followed.watch
        limit = Limit(self._uid, OUTBOUND_PORT, INBOUND_PORT, options.connection_rate)
        can_count = limited is not None and limited.watch([limit])
        return replace(options, drops_logged=can_count)
