"""Objects of a snapshot with control characters where proxies refuse them. Pure.

New objects are refused for these; those that were accepted before stay in force, and proxies would
refuse whole route configurations for some of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from meshd.api.base import Object
from meshd.api.decode import Path
from meshd.api.texts import controlled
from meshd.api.traffic import DestinationRule
from meshd.api.virtual_service.types import VirtualService
from meshd.api.yaml import show_path
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.closed_rule import ClosedRule
from meshd.model.snapshot import Snapshot

_SENT: Final = frozenset({"consistentHash", "headers", "redirect", "rewrite"})
"""Parts of objects whose texts stand in requests and answers. Proxies take any text elsewhere."""


class ControlCharacters:
    """Looks again only at what has changed."""

    def __init__(self) -> None:
        self._given: tuple[tuple[Object, ...], ...] = ()
        """The lists of objects that were looked at last."""
        self._known: dict[int, tuple[Object, str]] = {}
        """By its id each object, and what proxies would refuse of it."""
        self._refused: dict[int, tuple[Object, str]] = {}
        """Those of which proxies would refuse anything."""
        self._closed: dict[str, tuple[Object, ...]] = {}
        """The lists with closed routes and rules, by field of the snapshot; empty: none is
        closed."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what is closed, with the reason."""
        return tuple(f"{one.key} is closed: {why}" for one, why in self._refused.values())

    def close(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with closed routes and rules in place of what proxies refuse.

        Their hosts are not reached, and all others are.
        """
        routes, rules = snapshot.virtual_services, snapshot.destination_rules
        if len(self._given) == 0 or routes is not self._given[0] or rules is not self._given[1]:
            self._given = routes, rules
            self._look((*routes, *rules))
            self._closed = (
                {
                    "virtual_services": tuple(self._routes(routes)),
                    "destination_rules": tuple(self._rules(rules)),
                }
                if self._refused
                else {}
            )
        return msgspec.structs.replace(snapshot, **self._closed) if self._closed else snapshot

    def _look(self, objects: tuple[Object, ...]) -> None:
        before = self._known
        self._known = {id(one): before.get(id(one)) or (one, _refused(one)) for one in objects}
        self._refused = {key: one for key, one in self._known.items() if one[1]}

    def _routes(self, objects: Iterable[VirtualService]) -> Iterator[VirtualService]:
        for one in objects:
            yield ClosedRoutes.of(one) if id(one) in self._refused else one

    def _rules(self, objects: Iterable[DestinationRule]) -> Iterator[DestinationRule]:
        for one in objects:
            yield ClosedRule.of(one) if id(one) in self._refused else one


def _refused(found: Object) -> str:
    if isinstance(found, ClosedRoutes | ClosedRule):
        return ""
    return next((_said(*problem) for problem in controlled(found) if _is_sent(problem[0])), "")


def _is_sent(path: Path) -> bool:
    return not _SENT.isdisjoint(path)


def _said(path: Path, message: str) -> str:
    return (
        f"{show_path(path)}: {message}, so proxies refuse it; correct it (until then its hosts are"
        " not reached)"
    )
