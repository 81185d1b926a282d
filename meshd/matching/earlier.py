"""Finds for each of a list of matches an earlier one that takes all its requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from meshd.matching.conditions import RouteMatch, TextMatch
from meshd.matching.covering import covers
from meshd.matching.entrances import ALL, Entrances

_MOST_COMPARED: Final = 20_000
"""Pairs that are compared for one list of matches, within a tenth of a second; the rest is not."""
Place = TypeVar("Place")


class Earlier(Generic[Place]):
    """The matches so far, by their paths: few of many can cover another."""

    def __init__(self) -> None:
        self._matches: list[tuple[RouteMatch, Entrances, Place]] = []
        self._by_path: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._regexes: list[int] = []
        self._sizes: set[int] = set()
        self._left = _MOST_COMPARED

    def add(self, match: RouteMatch, place: Place, entrances: Entrances = ALL) -> Place | None:
        """Add a match; return the place of the first that takes all its requests, if any does."""
        covering = self._covering(match, entrances)
        self._file(match.path, len(self._matches))
        self._matches.append((match, entrances, place))
        return covering

    def _covering(self, match: RouteMatch, entrances: Entrances) -> Place | None:
        if self._left <= 0:
            return None
        for number in sorted(set(self._candidates(match.path))):
            self._left -= 1
            earlier, where, place = self._matches[number]
            if where.covers(entrances) and covers(earlier, match):
                return place
        return None

    def _file(self, path: TextMatch, number: int) -> None:
        text = path.value.lower()
        if path.kind == "regex":
            self._regexes.append(number)
        else:
            self._by_path[path.kind, text].append(number)
        if path.kind == "prefix":
            self._sizes.add(len(text))

    def _candidates(self, path: TextMatch) -> Iterator[int]:
        """Yield the matches whose path may cover this one."""
        yield from self._regexes
        text = path.value.lower()
        if path.kind == "regex":
            text = "/"
        elif path.kind == "exact":
            yield from self._by_path.get(("exact", text), ())
        for size in self._sizes:
            if size <= len(text):
                yield from self._by_path.get(("prefix", text[:size]), ())
