"""Parses whole numbers from outside."""

from __future__ import annotations

from typing import Final

MOST: Final = 2**64 - 1
_LONGEST: Final = len(str(MOST))


def whole(text: str, most: int = MOST) -> int | None:
    """Return the number from 0 to ``most`` that is written in decimal digits; None when there is
    none. ``int`` takes signs, blanks, underscores and the digits of all scripts besides, and raises
    ValueError for more than 4,300 digits."""
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text.lstrip("0")[: _LONGEST + 1] or "0")
    return number if number <= most else None
