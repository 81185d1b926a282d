"""Charts of curves, as SVG. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 200, 40, 50
_COLOURS: Final = ("#1b6ca8", "#d1495b", "#2e933c", "#8f5fbf", "#c77f1b", "#4a4a4a", "#0f9d9d")


@dataclasses.dataclass(frozen=True, slots=True)
class Curve:
    """One line, by x."""

    name: str
    points: tuple[tuple[float, float], ...]


def chart(title: str, across: str, up: str, curves: Sequence[Curve]) -> str:
    """Return an SVG with a legend; the vertical axis is logarithmic.

    Values of 0 and less are drawn at the lower edge. Raises ValueError where there is no point.
    """
    points = [point for curve in curves for point in curve.points]
    right = max(x for x, _ in points) or 1.0
    heights = [y for _, y in points if y > 0] or [1.0]
    low = 10.0 ** math.floor(math.log10(min(heights)))
    high = max(10.0 ** math.ceil(math.log10(max(heights))), 10 * low)
    parts = [*_axes(title, across, up, right, low, high)]
    for number, curve in enumerate(curves):
        placed = [_place(x, y, right, low, high) for x, y in curve.points]
        parts += _line(curve.name, placed, _COLOURS[number % len(_COLOURS)], number)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' font-family="sans-serif" font-size="12">\n{body}\n</svg>\n'
    )


def _place(x: float, y: float, right: float, low: float, high: float) -> tuple[float, float]:
    part = math.log10(max(y, low) / low) / math.log10(high / low)
    across = _LEFT + x / right * (_WIDTH - _LEFT - _RIGHT)
    return across, _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


def _axes(title: str, across: str, up: str, right: float, low: float, high: float) -> Iterator[str]:
    end, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    yield _text(_LEFT, _TOP - 16, title, size=15)
    yield _text((_LEFT + end) / 2, _HEIGHT - 12, across, anchor="middle")
    yield _text(8, _TOP - 16 + 14, up)
    for step in range(round(math.log10(high / low)) + 1):
        value = low * 10**step
        _, y = _place(0, value, right, low, high)
        yield f'<path d="M{_LEFT} {y:.1f}H{end}" stroke="#ddd"/>'
        yield _text(_LEFT - 6, y + 4, f"{value:g}", anchor="end")
    for step in range(5):
        value = right * step / 4
        x, _ = _place(value, low, right, low, high)
        yield _text(x, floor + 18, f"{value:,.0f}", anchor="middle")
    yield f'<path d="M{_LEFT} {_TOP}V{floor}H{end}" fill="none" stroke="#444"/>'


def _line(
    name: str, placed: Sequence[tuple[float, float]], colour: str, number: int
) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in placed:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    y = _TOP + 18 * number
    yield f'<path d="M{_WIDTH - _RIGHT + 16} {y}h20" stroke="{colour}" stroke-width="2"/>'
    yield _text(_WIDTH - _RIGHT + 42, y + 4, name)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {place}>{escape(text)}</text>"
