"""Collects the stages of an explanation, with the places that they follow from."""

from __future__ import annotations

from collections.abc import Callable

from meshd import wire
from meshd.api.base import Key
from meshd.compile.plan.origin import Origin

PlaceOf = Callable[[Key, str], str]
"""Returns ``file:line`` of a field of an object; empty for an object that is in no file."""


def nowhere(key: Key, field: str) -> str:  # noqa: ARG001 - any place has these parameters
    return ""


class Telling:
    """The stages that have been told so far."""

    def __init__(self, place_of: PlaceOf) -> None:
        self._place_of = place_of
        self._steps: list[wire.Step] = []

    @property
    def stages(self) -> tuple[wire.Step, ...]:
        return tuple(self._steps)

    def tell(self, stage: str, detail: str, origin: Origin | None = None) -> None:
        """Add a stage; ``origin``: the field that it follows from, whose place is told."""
        place = self._place_of(origin.key, origin.field) if origin else ""
        self._steps.append(wire.Step(stage, f"{detail} ({place})" if place else detail))
