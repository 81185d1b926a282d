"""What a caller says of itself."""

from __future__ import annotations

from meshd.fleet.server.caller import Caller
from meshd.fleet.server.holders import MACHINE, METADATA


def instance_of(context: Caller) -> str:
    """Return which running machine a call is from, as it says; empty when it does not."""
    return _said(context, METADATA)


def machine_of(context: Caller) -> str:
    """Return which machine a call is from, as it says; empty when it does not."""
    return _said(context, MACHINE)


def _said(context: Caller, key: str) -> str:
    said = dict(context.invocation_metadata() or ()).get(key, "")
    return said if isinstance(said, str) else ""
