"""Figures and ratios of figures, as ``build/bench.json`` has them. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One figure, measured in several rounds."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def as_json(self) -> Json:
        return {
            "name": self.name,
            "unit": self.unit,
            "rounds": len(self.values),
            "min": min(self.values),
            "median": self.median,
            "max": max(self.values),
            "values": list(self.values),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio:
    """One figure over another, round by round: what disturbs a round disturbs both sides."""

    name: str
    over: Series
    under: Series

    @property
    def series(self) -> Series:
        """Raises ValueError when the rounds of the two sides differ."""
        pairs = zip(self.over.values, self.under.values, strict=True)
        return Series(self.name, "ratio", tuple(over / under for over, under in pairs))

    def as_json(self) -> Json:
        sides = {"numerator": self.over.as_json(), "denominator": self.under.as_json()}
        return self.series.as_json() | sides


def percentile(values: Sequence[float], fraction: float) -> float:
    """The smallest of the values that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]
