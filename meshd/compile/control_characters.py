"""Objects of a snapshot with control characters where proxies refuse them. Pure.

New objects are refused for these; those that were accepted before stay in force, and proxies would
refuse whole route configurations for some of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from meshd.api.base import Key, Object
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
        self._known: dict[Key, tuple[Object, str]] = {}
        """Each object, and what proxies would refuse of it."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what is closed, with the reason."""
        return tuple(f"{key} is closed: {why}" for key, (_, why) in self._known.items() if why)

    def close(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with closed routes and rules in place of what proxies refuse.

        Their hosts are not reached, and all others are.
        """
        objects = (*snapshot.virtual_services, *snapshot.destination_rules)
        self._known = {
            one.key: known
            if (known := self._known.get(one.key)) and known[0] is one
            else (one, _refused(one))
            for one in objects
        }
        if not any(why for _, why in self._known.values()):
            return snapshot
        return msgspec.structs.replace(
            snapshot,
            virtual_services=tuple(self._routes(snapshot.virtual_services)),
            destination_rules=tuple(self._rules(snapshot.destination_rules)),
        )

    def _routes(self, objects: Iterable[VirtualService]) -> Iterator[VirtualService]:
        for one in objects:
            yield ClosedRoutes.of(one) if self._known[one.key][1] else one

    def _rules(self, objects: Iterable[DestinationRule]) -> Iterator[DestinationRule]:
        for one in objects:
            yield ClosedRule.of(one) if self._known[one.key][1] else one


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
