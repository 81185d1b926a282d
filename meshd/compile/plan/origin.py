"""Where a part of the plan comes from.

No line numbers: an object that moves in its file makes nothing anew.
"""

from __future__ import annotations

import msgspec

from meshd.api.base import Key


class Origin(msgspec.Struct, frozen=True):
    """An object, and the path to the field inside it that asks for a part of the plan."""

    key: Key
    field: str
    """Such as ``spec.http[1].match[0]``."""

    def __str__(self) -> str:
        return f"{self.key}: {self.field}"
