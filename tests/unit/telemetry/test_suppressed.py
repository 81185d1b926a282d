"""Entries of the journal → what is missing in it."""

from __future__ import annotations

import datetime

from meshd.telemetry.suppressed import Row, Tally, What

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
DROPPED = "a596d6fe-7bfa-4994-828e-72309e95d61e"


def ours(lines: int, event: str = "suppressed") -> dict[str, object]:
    return {
        "MESHD_EVENT": event,
        "MESHD_LINES": str(lines),
        "MESHD_TEMPLATE": "it failed",
        "MESHD_ROLE": "proxy-0",
        "MESHD_WORKLOAD": "mesh.a",
        "_SYSTEMD_UNIT": "meshd.service",
        "MESSAGE": "whatever",
        "__REALTIME_TIMESTAMP": NOON,
    }


def test_our_own_are_added_up_by_kind() -> None:
    tally = Tally()
    tally.add([ours(3), ours(4), ours(5, "repeated")])
    what = What("meshd", "meshd.service", "proxy-0", "mesh.a", "dropped", "it failed")
    folded = What("meshd", "meshd.service", "proxy-0", "mesh.a", "repeated", "it failed")
    assert tally.rows == (Row(what, 7, NOON), Row(folded, 5, NOON))


def test_those_of_journald_are_added_up_by_unit() -> None:
    tally = Tally()
    for count in (10, 20):
        message = f"Suppressed {count} messages from noisy.service"
        tally.add([{"MESSAGE_ID": DROPPED, "MESSAGE": message, "__REALTIME_TIMESTAMP": NOON}])
    assert tally.rows == (Row(What("journald", "noisy.service"), 30, NOON),)


def test_entries_about_something_else_are_left_alone() -> None:
    tally = Tally()
    tally.add([{"MESSAGE": "x"}, {"MESHD_EVENT": "suppressed"}, {"MESSAGE_ID": DROPPED}])
    tally.add([ours(1) | {"MESHD_LINES": "-1"}, ours(1) | {"MESHD_LINES": "x"}])
    assert tally.rows == ()
