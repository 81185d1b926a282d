"""Formats moments for other programs."""

from __future__ import annotations

import datetime


def rfc3339(seconds: float) -> str:
    """Format ``seconds`` since the epoch, in UTC and without fractions: RFC 3339, 5.6."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
