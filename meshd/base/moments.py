"""Formats moments, in seconds since the epoch, and durations, in seconds."""

from __future__ import annotations

import datetime


def rfc3339(moment: float) -> str:
    """Format a moment for other programs, in UTC and without fractions: RFC 3339, 5.6."""
    return _utc(moment).isoformat(timespec="seconds").replace("+00:00", "Z")


def date(moment: float) -> str:
    """Format a moment for people: ``2026-03-01 09:30:00 UTC``."""
    return f"{_utc(moment):%Y-%m-%d %H:%M:%S} UTC"


def _utc(moment: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC)


def span(seconds: float) -> str:
    """Format a duration of either sign for a sentence, in the largest unit that fits."""
    length = abs(seconds)
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if round(length / size, 1) >= 1:
            count = round(length / size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{length:.0f} seconds"


def age(seconds: float) -> str:
    """Format a duration for a table, in the largest unit that fits at least once: ``5m``, ``3h``,
    ``12d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def age_of(created: str, now: float) -> str:
    """Return the age of an RFC 3339 time; empty if the text is not one."""
    try:
        return age(now - datetime.datetime.fromisoformat(created).timestamp())
    except (ValueError, OverflowError):
        return ""
