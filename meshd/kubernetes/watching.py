"""Follows one kind of objects in the API server: all of them once, then each change.

What was followed stays known while the API server is away; when it answers again, what has gone
meanwhile is told, too. https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar
from urllib.parse import urlencode

import msgspec

from meshd.api.base import Ignoring
from meshd.base import journal
from meshd.base.backoff import Backoff, spread
from meshd.base.errors import UNDECODABLE, MeshdError
from meshd.base.once import SaidOnce
from meshd.kubernetes.client import GONE, NOT_FOUND, ApiError, Client
from meshd.kubernetes.objects import Followed

T = TypeVar("T", bound=Followed)
_BACKOFF: Final = Backoff(0.2, 30.0)
_PAGE: Final = 500
_LIFETIME: Final = 300
"""Seconds of one watch. The API server sends a bookmark each minute, so that silence means that it
is gone."""
_SILENCE: Final = 150.0
_log: Final = logging.getLogger(__name__)


class _ListMeta(Ignoring, frozen=True):
    resource_version: str = ""
    next: str = msgspec.field(default="", name="continue")


class _Listed(Ignoring, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: tuple[msgspec.Raw, ...] = ()


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw = msgspec.Raw()


class _Refusal(Ignoring, frozen=True):
    code: int = 0
    message: str = ""


class Watch(Generic[T]):
    """``path`` is that of the kind, such as ``/api/v1/pods``; ``only`` what is asked for of it.

    ``listed`` is called with all objects, ``changed`` with each one that is new or another one, and
    ``removed`` with the last state of each that is gone.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        kind: type[T],
        *,
        listed: Callable[[Sequence[T]], None],
        changed: Callable[[T], None],
        removed: Callable[[T], None],
        only: dict[str, str] | None = None,
        optional: bool = False,
        noted: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow nothing yet.

        ``optional``: an API server that does not know the kind has none of it. ``noted`` is called
        when ``problem`` has changed.
        """
        self._optional = optional
        self._noted = noted
        self._client = client
        self._path = path
        self._only = only or {}
        self._decoder = msgspec.json.Decoder(kind)
        self._listed, self._changed, self._removed = listed, changed, removed
        self._version = ""
        self._failures = 0
        """In a row."""
        self._unreadable = SaidOnce({"MESHD_EVENT": "kubernetes"})
        self.problem = ""
        """Why what is known may be old; empty: it is not."""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._follow()
            except MeshdError as error:
                self._failures += 1
                status = error.status if isinstance(error, ApiError) else 0
                if status == GONE:
                    self._version = ""
                elif status == NOT_FOUND and self._optional:
                    self._version = ""
                    self._note("")
                    self._listed(())
                else:
                    self._note(str(error))
                await asyncio.sleep(spread(_BACKOFF.pause(self._failures)))

    def _note(self, problem: str) -> None:
        if problem and not self.problem:
            text = "%s is not followed: %s"
            journal.event(_log, logging.WARNING, "kubernetes", text, self._path, problem)
        if problem != self.problem:
            self.problem = problem
            self._noted()

    async def _list(self) -> None:
        """Raises MeshdError."""
        found: list[T] = []
        more = ""
        while True:
            asked = {**self._only, "limit": str(_PAGE)} | ({"continue": more} if more else {})
            page = await self._client.get(f"{self._path}?{urlencode(asked)}")
            listed = _decoded(page, _LISTED, self._path)
            del page
            found += filter(None, map(self._object, listed.items))
            more = listed.metadata.next
            if not more:
                break
        self._listed(found)
        self._version = listed.metadata.resource_version

    async def _follow(self) -> None:
        """Raises MeshdError; returns when the API server ends the watch, which it may."""
        asked = {
            **self._only,
            "watch": "1",
            "allowWatchBookmarks": "1",
            "resourceVersion": self._version,
            "timeoutSeconds": str(_LIFETIME),
        }
        path = f"{self._path}?{urlencode(asked)}"
        async for line in self._client.lines(path, _SILENCE):
            self._failures = 0
            self._note("")
            if not line:
                continue
            event = _decoded(line, _EVENT, self._path)
            if event.type == "ERROR":
                refusal = _decoded(bytes(event.object), _REFUSAL, self._path)
                raise ApiError(refusal.code, f"{self._path}: {refusal.message}")
            self._version = self._version_of(event.object) or self._version
            found = self._object(event.object)
            if found is None:
                continue
            if event.type in {"ADDED", "MODIFIED"}:
                self._changed(found)
            elif event.type == "DELETED":
                self._removed(found)

    def _version_of(self, raw: msgspec.Raw) -> str:
        """Raises ApiError."""
        return _decoded(bytes(raw), _FOLLOWED, self._path).metadata.resource_version

    def _object(self, raw: msgspec.Raw) -> T | None:
        """Return an object; None if it cannot be read, which concerns no other."""
        try:
            return _decoded(bytes(raw), self._decoder, self._path)
        except ApiError as error:
            self._unreadable.say((str(error),))
            return None


_LISTED: Final = msgspec.json.Decoder(_Listed)
_EVENT: Final = msgspec.json.Decoder(_Event)
_REFUSAL: Final = msgspec.json.Decoder(_Refusal)
_FOLLOWED: Final = msgspec.json.Decoder(Followed)
_D = TypeVar("_D")


def _decoded(data: bytes, decoder: msgspec.json.Decoder[_D], path: str) -> _D:
    """Raises ApiError."""
    try:
        return decoder.decode(data)
    except UNDECODABLE as error:
        raise ApiError(0, f"{path}: what the API server says cannot be read: {error}") from None
