"""Objects that were in force and cannot be any more, wherever they are kept: what was applied, and
the last good copies of files, are read by the same rule. Pure.

An object that this version cannot read, or that fails its checks, is closed: an earlier version
took it. One that only counts more than may be put in force today stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from meshd.api.base import Key
from meshd.api.decode import Path
from meshd.api.finding import Finding
from meshd.api.read import Read, Reading, Unread
from meshd.api.write import to_json
from meshd.api.yaml import Document
from meshd.base.json_values import Json
from meshd.config import withheld
from meshd.config.admission import refusal
from meshd.config.withheld import Closed, Replacement


@dataclasses.dataclass(frozen=True, slots=True)
class Unusable:
    """An object that cannot be read, or fails its checks."""

    value: Json
    """The object as plain values."""
    why: str

    @property
    def key(self) -> Key | None:
        """Return the key; None if the object does not say it."""
        return withheld.key_of(self.value)

    @property
    def policy(self) -> Replacement | None:
        """Return the policy that is in force in its place; None if it is none."""
        key = self.key
        return key and withheld.in_place_of(key.kind, key.namespace, key.name)

    @property
    def is_lost(self) -> bool:
        """Return whether it may have closed something, without saying what."""
        return withheld.is_lost(self.value)

    def finding(self, path: str, remedy: str) -> Finding:
        reason = (
            f"{self.key} is not in force, but kept: {self.why}; {remedy} (until then what it is"
            " about is refused)"
        )
        return Finding(path, 1, reason)


def closed(unusable: Iterable[Unusable]) -> tuple[Closed, ...]:
    """Return closed objects for those with hosts, or an address."""
    found = (withheld.closed_value(one.value) for one in unusable)
    return tuple(one for one in found if one)


def kept(stored: Iterable[Read], reading: Reading) -> tuple[tuple[Read, ...], tuple[Unusable, ...]]:
    """Return what is in force of a text that was good once, with the replacements of policies, and
    what is not. ``stored``: the objects of the text that are configuration."""
    reads: list[Read] = []
    unusable: list[Unusable] = []
    for read in stored:
        if why := refusal(read):
            unusable.append(one := Unusable(to_json(read.object), why))
            reads += _replaced(one, read.document, read.at)
        else:
            reads.append(read)
    for left in reading.unread:
        unusable.append(one := Unusable(left.value, _why_unread(left, reading)))
        reads += _replaced(one, left.document, left.at)
    return tuple(reads), tuple(unusable)


def _replaced(one: Unusable, document: Document, at: Path) -> Iterator[Read]:
    if policy := one.policy:
        yield Read(policy, document, at)


def _why_unread(left: Unread, reading: Reading) -> str:
    """Return what is wrong with an object, as far as that can be told from what is beside it."""
    key = withheld.key_of(left.value)
    for finding in reading.errors:
        if key == Key(finding.kind, finding.namespace, finding.name):
            return f"{finding.field}: {finding.message}"
    return "it cannot be read"
