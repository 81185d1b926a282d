"""Label selectors in kubectl's language, for ``-l``. Pure.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Final

import typer

from meshd.api.object_fields import labels_of
from meshd.base.json_values import JsonObject

_SET: Final = re.compile(r"(?P<key>[^\s,=!()]+)\s+(?P<verb>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUAL: Final = re.compile(r"(?P<key>[^\s,=!()]+)\s*(?P<verb>==|=|!=)\s*(?P<values>[^\s,=!()]*)")
_PRESENT: Final = re.compile(r"(?P<verb>!?)\s*(?P<key>[^\s,=!()]+)(?P<values>)")
_COMMA: Final = re.compile(r"\s*(,|$)\s*")


@dataclasses.dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label: it has one of some values, has none of them, exists, or does
    not."""

    key: str
    values: frozenset[str] | None
    wanted: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        there = self.key in labels
        if self.values is not None:
            there = there and labels[self.key] in self.values
        return there is self.wanted


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """Raises typer.BadParameter."""
    found: list[Requirement] = []
    at = 0
    while at < len(text):
        rest = text[at:].lstrip()
        match = next(filter(None, (one.match(rest) for one in (_SET, _EQUAL, _PRESENT))), None)
        end = match and _COMMA.match(rest, match.end())
        if match is None or end is None:
            raise typer.BadParameter(
                f'-l "{text}": cannot read "{rest}"; write a=b, a in (b,c), !a'
            )
        found.append(_requirement(match))
        at = len(text) - len(rest) + end.end()
    return tuple(found)


def _requirement(match: re.Match[str]) -> Requirement:
    verb, values = match["verb"], match["values"]
    if match.re is _PRESENT:
        return Requirement(match["key"], None, wanted=not verb)
    named = frozenset(value.strip() for value in values.split(","))
    return Requirement(match["key"], named, wanted=verb in {"in", "=", "=="})


def is_selected(found: JsonObject, requirements: tuple[Requirement, ...]) -> bool:
    labels = labels_of(found)
    return all(requirement.holds(labels) for requirement in requirements)
