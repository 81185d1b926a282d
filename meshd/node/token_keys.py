"""The keys of issuers that RequestAuthentications name by a URL: fetched, kept, fetched again.

Nothing waits for them. A token is not believed until its issuer's keys are there; keys that are
there stay until there are newer ones, over restarts, too, however long the issuer is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd import wire
from meshd.api.base import Object
from meshd.api.request_authentication.discovery import keys_at
from meshd.api.request_authentication.key_sets import NoKeySetError, key_set
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.base import kept_file
from meshd.base.backoff import Backoff, spread
from meshd.base.errors import MeshdError
from meshd.base.kept_file import KeptFile
from meshd.base.once import SaidOnce
from meshd.wire import channel

MOST: Final = 64
"""URLs that are asked for the policies of one namespace; further ones are left out, and named."""
_AT_ONCE: Final = 4
"""URLs that are asked at a time, of each namespace one: none keeps the keys of others away for long
by issuers that do not answer."""
_USUAL: Final = 5.0
"""Seconds for an answer, where a rule names none. Istio's."""
_LONGEST: Final = 30.0
"""Seconds for an answer, whatever a rule names."""
_SPARE: Final = 20.0
"""Seconds for the supervisor's answer beyond those."""
_AGAIN: Final = Backoff(2.0, 300.0)
"""After attempts that failed."""
_SOONEST: Final = 1.0
_log: Final = logging.getLogger(__name__)
_EVENT: Final = {"MESHD_EVENT": "issuer"}
Fetch = Callable[[str, float], Awaitable[wire.FetchedKeys]]
"""Asks a URL, within so many seconds. Raises MeshdError."""


class Held(msgspec.Struct, frozen=True):
    """Keys, and the Unix time at which they were fetched."""

    keys: str
    since: float


class _Record(msgspec.Struct, frozen=True):
    held: dict[str, Held]


def fetching(socket: Path) -> Fetch:
    """Return what has the supervisor ask."""

    async def fetch(url: str, seconds: float) -> wire.FetchedKeys:
        request = wire.FetchKeys(url, seconds)
        answer = await channel.call(socket, request, timeout=seconds + _SPARE)
        if isinstance(answer, wire.FetchedKeys):
            return answer
        return wire.FetchedKeys(problem="the supervisor is of another version")

    return fetch


class Wanted(msgspec.Struct, frozen=True):
    """For whom a URL is asked, and the seconds that it may take."""

    namespace: str
    """One of those whose policies name it."""
    seconds: float


def wanted(objects: Iterable[Object]) -> dict[str, Wanted]:
    """Return the URLs that policies name. Pure."""
    found: dict[str, Wanted] = {}
    for one in objects:
        for rule in one.spec.jwt_rules if isinstance(one, RequestAuthentication) else ():
            if url := keys_at(rule):
                seconds = min(float(rule.timeout or _USUAL), _LONGEST)
                before = found.get(url) or Wanted(one.metadata.namespace, seconds)
                found[url] = Wanted(before.namespace, max(before.seconds, seconds))
    return found


class _Url:
    """What is known of a URL that is asked."""

    def __init__(self, due: float) -> None:
        self.due = due
        """Monotonic time of the next attempt."""
        self.asking = False
        self.failures = 0
        self.problem = ""


class TokenKeys:
    """The keys. ``changed`` is called when they have changed, or ``problems``; ``refresh``: the
    seconds after which they are fetched again."""

    def __init__(
        self,
        path: Path,
        objects: Callable[[], Iterable[Object]],
        fetch: Fetch,
        changed: Callable[[], None],
        refresh: float,
    ) -> None:
        """Read the keys that were kept."""
        self._objects = objects
        self._fetch = fetch
        self._changed = changed
        self._refresh = refresh
        self._kept = KeptFile(path, self._content, changed)
        self._held: dict[str, Held] = kept_file.load(path, _read, "keys are fetched anew") or {}
        self._wanted: Mapping[str, Wanted] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._turns_of: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By namespace."""
        self._urls: dict[str, _Url] = {}
        self._news = asyncio.Event()
        self._said = SaidOnce(_EVENT)
        self.keys: dict[str, str] = {}
        """By URL, of those that are wanted. It is replaced, and never changed."""
        self._follow()

    @property
    def problems(self) -> str:
        """Return what is wrong with keys; empty if nothing is."""
        return "; ".join((*self._problems(), *filter(None, (self._kept.problem,))))

    def _problems(self) -> Iterator[str]:
        for name, one in self._urls.items():
            if one.problem and name in self._held:
                since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(self._held[name].since))
                yield f"{name}: keys are not fetched: {one.problem} (those of {since} UTC are used)"
            elif one.problem:
                yield f"{name}: keys are not fetched: {one.problem} (no token of it is believed)"
        if left_out := len(self._wanted) - len(self._urls):
            yield f"{left_out} URLs of keys are not asked: {MOST} are for one namespace"

    def look(self) -> None:
        """Look at the policies, which may have changed."""
        if self._follow():
            self._news.set()
            self._changed()

    def _follow(self) -> bool:
        """Return whether other URLs are wanted than before."""
        found = wanted(self._objects())
        if found == self._wanted:
            return False
        self._wanted = found
        now, chosen = time.monotonic(), Counter[str]()
        urls: dict[str, _Url] = {}
        for url in sorted(found, key=lambda url: (url not in self._held, url)):
            chosen[found[url].namespace] += 1
            if chosen[found[url].namespace] <= MOST:
                urls[url] = self._urls.get(url) or _Url(self._first(url, now))
        self._urls = urls
        self._held = {url: one for url, one in self._held.items() if url in self._urls}
        self._kept.touch()
        self._take()
        return True

    def _first(self, url: str, now: float) -> float:
        """Return when a URL is asked first: keys that were kept may be new enough."""
        age = time.time() - self._held[url].since if url in self._held else self._refresh
        return now + min(max(self._refresh - age, 0.0), self._refresh)

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._kept.run())
            tasks.create_task(self._fetch_for_ever())

    async def _fetch_for_ever(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                for url in self._due():
                    tasks.create_task(self._ask(url))
                waiting = (one.due for one in self._urls.values() if not one.asking)
                soonest = min(waiting, default=None)
                pause = None if soonest is None else max(soonest - time.monotonic(), _SOONEST)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._news.wait()

    async def step(self) -> None:
        """Ask each URL that is due, side by side, and wait for all of them."""
        await asyncio.gather(*map(self._ask, self._due()))

    def _due(self) -> list[str]:
        """Return the URLs that are due, and note that they are asked."""
        now = time.monotonic()
        due = [url for url, one in self._urls.items() if one.due <= now and not one.asking]
        for url in due:
            self._urls[url].asking = True
        return due

    async def _ask(self, url: str) -> None:
        namespace = self._wanted[url].namespace if url in self._wanted else ""
        async with self._turns_of[namespace], self._turns:
            if (asked := self._wanted.get(url)) is None:
                return  # nobody wants it any more
            keys, problem = await self._answer(url, asked.seconds)
        if (known := self._urls.get(url)) is None:
            return
        known.asking = False
        known.failures = 0 if keys else known.failures + 1
        pause = self._refresh if keys else min(_AGAIN.pause(known.failures), self._refresh)
        known.due = time.monotonic() + spread(pause, 0.1)
        before, known.problem = known.problem, problem
        if keys:
            self._held[url] = Held(keys, time.time())
            self._kept.touch()
        self._news.set()
        self._said.say(tuple(self._problems()))
        if self._take() or problem != before:
            self._changed()

    async def _answer(self, url: str, seconds: float) -> tuple[str, str]:
        """Return the keys that a URL has, or why there are none."""
        try:
            answer = await self._fetch(url, seconds)
            return ("", answer.problem) if answer.problem else (key_set(answer.keys).text, "")
        except (MeshdError, NoKeySetError) as error:
            return "", str(error)

    def _take(self) -> bool:
        """Return whether keys have changed."""
        keys = {url: one.keys for url, one in sorted(self._held.items())}
        before, self.keys = self.keys, keys if keys != self.keys else self.keys
        return before is not self.keys

    def _content(self) -> Callable[[], bytes]:
        held = dict(self._held)
        return lambda: msgspec.json.encode(_Record(held))


def _read(content: bytes) -> dict[str, Held]:
    """Return the keys of a record, without what is none."""
    found: dict[str, Held] = {}
    for url, one in msgspec.json.decode(content, type=_Record).held.items():
        try:
            found[url] = Held(key_set(one.keys).text, one.since)
        except NoKeySetError as error:
            _log.warning("%s: kept keys are left out: %s", url, error, extra=_EVENT)
    return found
