"""Keeps the names of policies about requests apart from them, for when configuration is lost:
AuthorizationPolicies, and RequestAuthentications.

What cannot be read any more may have denied something. Of which namespaces that is, only a record
can tell: to deny everything everywhere would stop meshes that have no policies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.base import Key
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.base import kept_file
from meshd.base.kept_file import KeptFile
from meshd.config.store import Store

_CONSEQUENCE: Final = (
    "namespaces are not closed if their policies about requests are lost before it is written again"
)


_KINDS: Final = (AuthorizationPolicy.KIND, RequestAuthentication.KIND)


class _Record(msgspec.Struct, frozen=True):
    authorization_policies: tuple[tuple[str, str], ...]
    """Namespace and name of each."""
    request_authentications: tuple[tuple[str, str], ...] = ()


class Seen(msgspec.Struct, frozen=True):
    """What a store has."""

    policies: frozenset[Key] = frozenset()
    """In force or not, readable or not."""
    lost: tuple[str, ...] = ()

    @classmethod
    def of(cls, store: Store) -> Seen:
        return cls(frozenset(key for key in store.known if key.kind in _KINDS), store.lost)


def in_use(before: frozenset[Key], seen: Seen, now: Seen) -> frozenset[Key]:
    """Return the policies that are in use; ``before``: those that were when ``seen`` was so.

    One that goes together with other configuration may be lost; one that goes alone was deleted.
    Pure.
    """
    if not now.lost:
        return now.policies
    deleted = seen.policies - now.policies if seen.lost == now.lost else frozenset[Key]()
    return (before | now.policies) - deleted


class PoliciesInUse:
    """The record of a store's policies; the store knows of it from the beginning."""

    def __init__(self, path: Path, store: Store, changed: Callable[[], None]) -> None:
        """Read the record; ``changed`` is called when ``problem`` has changed."""
        self._store = store
        self._seen = Seen()
        self._kept = KeptFile(path, self._content, changed)
        store.policies_in_use = kept_file.load(path, _read, _CONSEQUENCE) or frozenset()

    @property
    def problem(self) -> str:
        """Return why the record is not written; empty if it is."""
        return self._kept.problem

    async def run(self) -> None:
        """Keep the record until cancelled. The store has all that it has at the start."""
        self._store.subscribe(self.look)
        self.look()
        await self._kept.run()

    def look(self) -> None:
        """Look at the store, which has changed."""
        store, now = self._store, Seen.of(self._store)
        found = in_use(store.policies_in_use, self._seen, now)
        self._seen = now
        if found != store.policies_in_use:
            store.policies_in_use = found
            self._kept.touch()

    def _content(self) -> Callable[[], bytes]:
        found = self._store.policies_in_use
        names = (
            tuple(sorted((key.namespace, key.name) for key in found if key.kind == kind))
            for kind in _KINDS
        )
        record = _Record(*names)
        return lambda: msgspec.json.encode(record)


def _read(content: bytes) -> frozenset[Key]:
    found = msgspec.json.decode(content, type=_Record)
    listed = found.authorization_policies, found.request_authentications
    return frozenset(
        Key(kind, *one) for kind, names in zip(_KINDS, listed, strict=True) for one in names
    )
