from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest

from meshd.capture.pods import limited
from meshd.capture.pods.limited import Limit, Limited, State, after
from meshd.capture.rules.nflog import counts
from meshd.model.workload import DroppedConnections

LIMIT = Limit("shop.web", outbound=15001, inbound=15006, rate=200)
SINCE = "2030-01-01T00:00:00Z"
LATER = "2030-01-01T00:00:09Z"


def packet(group: int, number: int) -> bytes:
    """NFULNL_MSG_PACKET with the hook and the packet's number."""
    attributes = struct.pack("=HH4x", 8, 1) + struct.pack("=HH", 8, 12) + struct.pack(">I", number)
    body = struct.pack(">BBH", 2, 0, group) + attributes
    return struct.pack("=IHHII", 16 + len(body), 0x400, 0, 0, 0) + body


def test_the_kernels_numbers_count_packets_of_each_group_seen_or_not() -> None:
    other = struct.pack("=IHHII", 20, 0x2, 0, 0, 0) + b"\0\0\0\0"
    told = packet(15001, 0) + other + packet(15006, 6) + packet(15001, 41)
    assert list(counts(told)) == [(15001, 1), (15006, 7), (15001, 42)]


@pytest.mark.parametrize(
    ("dropped", "what"),
    [((3, 0), "it opens more than 200 new"), ((0, 3), "it is sent more than 400 new")],
)
def test_a_limited_workload_hears_since_when_and_how_to_raise_the_limit(
    dropped: tuple[int, int], what: str
) -> None:
    said = after(State(), LIMIT, dropped, 100.0, SINCE).dropped
    assert (said.opened, said.received) == dropped
    assert what in said.limited
    assert f"since {SINCE}" in said.limited
    assert "capture.connections_per_second" in said.limited
    assert "annotation meshd.io/connections-per-second" in said.limited


def test_it_stays_limited_since_the_first_drop_until_there_is_none_for_a_while() -> None:
    first = after(State(), LIMIT, (3, 0), 100.0, SINCE)
    more = after(first, LIMIT, (9, 0), 109.0, LATER)
    assert more.dropped == DroppedConnections(9, 0, first.dropped.limited)
    assert after(more, LIMIT, (9, 0), 118.0, LATER) == more
    assert after(more, LIMIT, (9, 0), 119.0, LATER).dropped == DroppedConnections(9, 0, "")


def test_what_was_dropped_of_others_at_the_same_ports_is_not_counted() -> None:
    begun = State(others=(50, 7))
    assert after(begun, LIMIT, (50, 7), 100.0, SINCE) == begun
    assert after(begun, LIMIT, (51, 7), 100.0, SINCE).dropped.opened == 1


def test_a_workload_is_told_when_what_is_dropped_is_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limited, "PacketCounts", Counts)

    async def story() -> None:
        counting = Limited(lambda _: None)
        assert counting.watch([LIMIT])
        assert counting.of(LIMIT.uid).uncounted == ""
        counting.refuse("no target NFLOG")
        assert not counting.watch([LIMIT])
        assert "uncounted: no target NFLOG" in counting.of(LIMIT.uid).uncounted
        assert counting.of("shop.unlimited").uncounted == ""
        monkeypatch.setattr(limited, "_TRY_AGAIN", 0.0)
        assert counting.watch([LIMIT])
        assert counting.of(LIMIT.uid).uncounted == ""

    asyncio.run(story())


class Counts:
    """A kernel that logs."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed

    def count(self, group: int) -> int:
        return group - group
