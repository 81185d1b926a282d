"""Puts replacements in place of routes, rules and policies of a snapshot. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias, TypeVar, cast

import msgspec

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.virtual_service.types import VirtualService
from meshd.model.snapshot import Snapshot

Replaceable: TypeAlias = (
    VirtualService | DestinationRule | AuthorizationPolicy | RequestAuthentication
)
_Kind = TypeVar(
    "_Kind", VirtualService, DestinationRule, AuthorizationPolicy, RequestAuthentication
)


class Replacements:
    """The lists of one snapshot, made once for it and for all later ones with the same lists.

    ``instead``: the replacements by the id of the object that each replaces, of the same kind.
    """

    def __init__(self, snapshot: Snapshot, instead: Mapping[int, Replaceable]) -> None:
        self._lists: Mapping[str, tuple[Replaceable, ...]] = (
            {
                "virtual_services": tuple(_replaced(snapshot.virtual_services, instead)),
                "destination_rules": tuple(_replaced(snapshot.destination_rules, instead)),
                "authorization_policies": tuple(
                    _replaced(snapshot.authorization_policies, instead)
                ),
                "request_authentications": tuple(
                    _replaced(snapshot.request_authentications, instead)
                ),
            }
            if instead
            else {}
        )

    def put_into(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot with the replacements."""
        return msgspec.structs.replace(snapshot, **self._lists) if self._lists else snapshot


def _replaced(objects: tuple[_Kind, ...], instead: Mapping[int, Replaceable]) -> Iterator[_Kind]:
    for one in objects:
        yield cast("_Kind", instead.get(id(one), one))


NOTHING: Final = Replacements(Snapshot(), {})
