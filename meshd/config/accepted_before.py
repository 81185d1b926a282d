"""Finds stored objects that would be refused today: another version accepted them, or a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from meshd.api.base import Key, Object
from meshd.api.counts import too_many
from meshd.api.decode import Path
from meshd.api.finding import Finding
from meshd.api.texts import controlled
from meshd.api.yaml import show_path


class AcceptedBefore:
    """Checks each object once. That takes a while, so it runs in a thread."""

    def __init__(self) -> None:
        self._known: Mapping[Key, tuple[Object, tuple[Path, str] | None]] = {}

    def findings(self, stored: Mapping[Key, Object], path: str) -> Iterator[Finding]:
        """Yield a finding for each such object; ``path``: the file of the stored objects."""
        self._known = {key: self._look(key, one) for key, one in stored.items()}
        for key, (_, problem) in self._known.items():
            if problem:
                reason = (
                    f"{key} is in force, as it was accepted before, but a change of it is refused:"
                    f" {show_path(problem[0])}: {problem[1]}"
                )
                yield Finding(path, 1, reason)

    def _look(self, key: Key, found: Object) -> tuple[Object, tuple[Path, str] | None]:
        known = self._known.get(key)
        return known if known and known[0] is found else (found, _refused_today(found))


def _refused_today(found: Object) -> tuple[Path, str] | None:
    """Return the first place of an object that would be refused today, and why; None if there is
    no such place."""
    return next(itertools.chain(too_many(found), controlled(found)), None)
