"""Counts and reports the connections that the kernel drops above the limits of workloads.

The kernel reports drops by itself (see ``nflog``), so nothing is read while none occur.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from meshd.base.errors import SystemRefusedError
from meshd.base.moments import rfc3339
from meshd.capture.host.rules import HostWorkload
from meshd.capture.pods.followed import Followed
from meshd.capture.pods.namespaces import Pin
from meshd.capture.rules.nflog import PacketCounts
from meshd.capture.rules.options import CONNECTIONS_ANNOTATION, CaptureOptions, received_rate
from meshd.model.interception import INBOUND_PORT, OUTBOUND_PORT
from meshd.model.workload import DroppedConnections, shown

_QUIET: Final = 10.0
"""Seconds without a drop after which a workload no longer counts as limited."""
_TRY_AGAIN: Final = 3600.0
"""Seconds before rules that log are written again after the kernel has refused them."""
_SAID: Final = 300.0
"""Least seconds between lines about one workload in the journal."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """The limit of one workload, and the proxy's ports at which its connections are counted."""

    uid: str
    outbound: int
    inbound: int
    rate: int
    """New connections a second that the workload may open; 0: any number."""


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What is known of the drops of one workload."""

    others: tuple[int, int] = (0, 0)
    """Counts at the same ports, of the workloads that had these ports before."""
    dropped: DroppedConnections = dataclasses.field(default_factory=DroppedConnections)
    last: float = -_QUIET
    """When the last drop was seen, by the monotonic clock."""
    said: float = -_SAID
    """When the journal last reported the drops, by the monotonic clock."""


def after(before: State, limit: Limit, counts: tuple[int, int], now: float, moment: str) -> State:
    """Return the state after these ``counts`` of connections opened and received. Pure.

    ``now`` is by the monotonic clock, ``moment`` the same time in RFC 3339.
    """
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
    """Counts drops for the workloads of the namespace in which the object was made.

    ``changed`` is called with the uid of a workload when its counts or its state change.
    """

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._counts = PacketCounts(self._look)
        self._limits: Mapping[str, Limit] = {}
        self._states: dict[str, State] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._uncounted = ""
        """Why drops are not counted; empty if they are."""
        self._refused = -math.inf
        """When rules that log were refused, by the monotonic clock."""

    def close(self) -> None:
        if self._looking:
            self._looking.cancel()
        self._counts.close()

    def of(self, uid: str) -> DroppedConnections:
        state = self._states.get(uid)
        dropped = state.dropped if state else DroppedConnections()
        uncounted = self._uncounted if uid in self._limits else ""
        return msgspec.structs.replace(dropped, uncounted=uncounted)

    def refuse(self, problem: str) -> None:
        """Write no rules that log for an hour, because the kernel refused them."""
        self._refused = time.monotonic()
        self._complain(problem)

    def watch(self, limits: Iterable[Limit]) -> bool:
        """Count for these limits only; return False if the kernel cannot count drops."""
        self._limits = {limit.uid: limit for limit in limits if limit.rate}
        self._states = {uid: one for uid, one in self._states.items() if uid in self._limits}
        if time.monotonic() - self._refused < _TRY_AGAIN:
            return False
        try:
            for limit in self._limits.values():
                before = self._counts.count(limit.outbound), self._counts.count(limit.inbound)
                self._states.setdefault(limit.uid, State(before))
        except SystemRefusedError as error:
            self._complain(str(error))
            return False
        self._uncounted = ""
        return True

    def counted(self, services: Sequence[HostWorkload]) -> tuple[HostWorkload, ...]:
        """Return the same services, with their drops logged if the kernel can count them."""
        can_count = self.watch(
            Limit(one.uid, one.outbound_port, one.inbound_port, one.options.connection_rate)
            for one in services
        )
        return tuple(
            replace(one, options=replace(one.options, drops_logged=can_count)) for one in services
        )

    def _complain(self, problem: str) -> None:
        """Log the problem once: drops go on, only their counts are missing."""
        if not self._uncounted:
            fields = {"MESHD_EVENT": "connection-limit"}
            _log.warning("connections above a limit are dropped unseen: %s", problem, extra=fields)
        self._uncounted = f"connections above its limit would be dropped uncounted: {problem}"

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
    """Report drops in the journal, at most once in ``_SAID`` seconds a workload."""
    if not state.dropped.limited or now - state.said < _SAID:
        return state
    fields = {"MESHD_WORKLOAD": uid, "MESHD_EVENT": "connection-limit"}
    _log.warning("workload %s: %s", shown(uid), state.dropped.limited, extra=fields)
    return replace(state, said=now)


class OwnLimit:
    """Counts drops for one workload in the namespace of its pin. ``changed``: see ``Limited``."""

    def __init__(self, uid: str, changed: Callable[[str], None]) -> None:
        self._uid = uid
        self._followed = Followed(lambda: Limited(changed))

    def follow(self, pin: Pin | None) -> None:
        """Count in this pin's namespace from now on. Raises NotReadyError if that is gone."""
        self._followed.follow(pin)

    def refuse(self, problem: str) -> None:
        """See ``Limited``."""
        if limited := self._followed.watch:
            limited.refuse(problem)

    @property
    def dropped(self) -> DroppedConnections:
        limited = self._followed.watch
        return limited.of(self._uid) if limited else DroppedConnections()

    def counted(self, options: CaptureOptions) -> CaptureOptions:
        """Return the same options, with drops logged if the kernel can count them."""
        limited = self._followed.watch
        limit = Limit(self._uid, OUTBOUND_PORT, INBOUND_PORT, options.connection_rate)
        can_count = limited is not None and limited.watch([limit])
        return replace(options, drops_logged=can_count)
