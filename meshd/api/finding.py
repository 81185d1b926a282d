"""Findings: errors and warnings about what a user wrote, and where."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """Something wrong with a manifest, at a place in it."""

    file: str
    line: int
    """0: the whole file."""
    message: str
    kind: str = ""
    namespace: str = ""
    name: str = ""
    field: str = ""
    severity: str = "error"
    """error or warning."""

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        place = f"{self.file}{line}: " if self.file else ""
        named = f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}".strip()
        subject = f"{named}: " if named else ""
        return f"{place}{subject}{self.field + ': ' if self.field else ''}{self.message}"
