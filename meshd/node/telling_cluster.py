"""Tells the mesh role what the API server has: all of it once, then each change.

A mesh role that begins anew is told all again, what has gone included.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from meshd import wire
from meshd.api.base import Object
from meshd.api.write import api_version
from meshd.base import journal
from meshd.base.backoff import Backoff, spread
from meshd.base.errors import InvalidInputError, MeshdError
from meshd.base.json_values import JsonObject
from meshd.base.tasks import first_of
from meshd.kubernetes.client import Client
from meshd.kubernetes.followed_kinds import KINDS, is_custom, path_of
from meshd.kubernetes.forwarded import Forwarded
from meshd.kubernetes.objects import Followed
from meshd.kubernetes.slices import EndpointSlice, listed
from meshd.kubernetes.watching import Watch
from meshd.model.listed import ListedEndpoint
from meshd.wire import channel, cluster

_SLICES: Final = "/apis/discovery.k8s.io/v1/endpointslices"
_SLICE: Final = "EndpointSlice"
_PART: Final = 500
"""Objects or slices of one message: these have a MiB at most each, and mostly some KiB."""
_BACKOFF: Final = Backoff(0.2, 5.0)
_log: Final = logging.getLogger(__name__)


class Told:
    """What is there of one kind, and what of it is to be told. ``values``: None until the API
    server has listed them."""

    def __init__(self) -> None:
        self.values: dict[str, Any] | None = None
        self._stale: set[str] = set()
        self._is_whole = False

    def list(self, values: Mapping[str, Any]) -> None:
        self.values, self._is_whole = dict(values), True

    def put(self, name: str, value: Any) -> None:
        if self.values is not None and self.values.get(name) != value:
            self.values[name] = value
            self._stale.add(name)

    def remove(self, name: str) -> None:
        if self.values is not None and self.values.pop(name, None) is not None:
            self._stale.add(name)

    def again(self) -> None:
        """Have all of it told."""
        self._is_whole = self.values is not None

    def take(self) -> tuple[bool, dict[str, Any], tuple[str, ...]]:
        """Return what is to be told now: whether it is all that there is, what is new or another
        one, and what has gone. It counts as told."""
        values = self.values or {}
        whole, stale = self._is_whole, self._stale
        self._is_whole, self._stale = False, set()
        if whole:
            return True, dict(values), ()
        changed = {name: values[name] for name in stale if name in values}
        return False, changed, tuple(sorted(stale - changed.keys()))


def _name(found: Followed) -> str:
    return "/".join(part for part in found.key if part)


class TellingCluster:
    """``mesh`` is the socket of the mesh role."""

    def __init__(self, client: Client, mesh: Path) -> None:
        self._client = client
        self._mesh = mesh
        self._told = {kind: Told() for kind in (_SLICE, *KINDS)}
        self._watches: list[Watch[Any]] = []
        self._trouble: tuple[str, ...] = ()
        """As it was told last."""
        self._changed = asyncio.Event()

    def take_all(self, kind: str, values: Mapping[str, Any]) -> None:
        """Take all that there is of a kind."""
        self._told[kind].list(values)
        self._changed.set()

    def note(self) -> None:
        """Note that something is followed, or is not."""
        self._changed.set()

    async def run(self, others: Sequence[Watch[Any]] = ()) -> None:
        """Follow and tell until cancelled; ``others``: what somebody else follows."""
        async with asyncio.TaskGroup() as tasks:
            own = [self._watch_slices(), *map(self._watch, KINDS.values())]
            self._watches = [*own, *others]
            for watch in own:
                tasks.create_task(watch.run())
            tasks.create_task(self._tell_for_ever())

    def _watch(self, kind: type[Object]) -> Watch[Forwarded]:
        told, version = self._told[kind.KIND], api_version(kind)

        def listed_all(found: Sequence[Forwarded]) -> None:
            values = {_name(one): one.value(version, kind.KIND) for one in found}
            self.take_all(kind.KIND, values)

        def changed(one: Forwarded) -> None:
            told.put(_name(one), one.value(version, kind.KIND))
            self._changed.set()

        return Watch(
            self._client,
            path_of(kind),
            Forwarded,
            optional=is_custom(kind),
            noted=self.note,
            listed=listed_all,
            changed=changed,
            removed=lambda one: self._removed(told, one),
        )

    def _watch_slices(self) -> Watch[EndpointSlice]:
        told = self._told[_SLICE]

        def listed_all(found: Sequence[EndpointSlice]) -> None:
            self.take_all(_SLICE, {_name(one): listed(one) for one in found})

        def changed(one: EndpointSlice) -> None:
            told.put(_name(one), listed(one))
            self._changed.set()

        return Watch(
            self._client,
            _SLICES,
            EndpointSlice,
            listed=listed_all,
            changed=changed,
            removed=lambda one: self._removed(told, one),
            noted=self.note,
        )

    def _removed(self, told: Told, one: Followed) -> None:
        told.remove(_name(one))
        self._changed.set()

    # ---- to the mesh role

    async def _tell_for_ever(self) -> None:
        failures = 0
        while True:
            failures += 1
            try:
                async with await channel.connect(self._mesh) as connection:
                    failures = 1
                    await first_of(self._tell(connection), self._answers(connection))
            except MeshdError:
                pass  # it is away; its supervisor says so
            await asyncio.sleep(spread(_BACKOFF.pause(failures)))

    async def _tell(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        for told in self._told.values():
            told.again()
        self._trouble = ()
        while True:
            self._changed.clear()  # first: what changes from now on is told the next time
            await connection.send_all(self.messages())
            await self._changed.wait()

    def messages(self) -> Iterable[cluster.Messages]:
        """Yield what is to be told now; slices come before the Services that have them."""
        for kind, told in self._told.items():
            whole, changed, removed = told.take()
            if whole or changed or removed:
                yield from _messages(kind, changed, removed, whole=whole)
        problems = dict.fromkeys(one.problem for one in self._watches if one.problem)
        if (trouble := tuple(problems)) != self._trouble:
            self._trouble = trouble
            yield cluster.Trouble(trouble)

    async def _answers(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        """Read answers until the mesh role hangs up."""
        while True:
            try:
                if (answer := await connection.receive()) is None:
                    return
            except InvalidInputError as error:
                answer = wire.Failed(str(error))
            if isinstance(answer, wire.Failed):
                text = "the mesh role refuses what the API server has: %s"
                journal.event(_log, logging.ERROR, "kubernetes", text, answer.reason)


def _messages(
    kind: str, changed: dict[str, Any], removed: tuple[str, ...], *, whole: bool
) -> Iterator[cluster.Messages]:
    """Yield what tells of so many as fit into a message, one after the other: a whole list begins,
    and goes on with what is added."""
    items = list(changed.items())
    yield _message(kind, dict(items[:_PART]), removed, whole=whole)
    for start in range(_PART, len(items), _PART):
        yield _message(kind, dict(items[start : start + _PART]), (), whole=False)


def _message(
    kind: str, changed: dict[str, Any], removed: tuple[str, ...], *, whole: bool
) -> cluster.Messages:
    if kind == _SLICE:
        endpoints: dict[str, tuple[ListedEndpoint, ...]] = changed
        return cluster.Slices(endpoints, removed, whole)
    values: list[JsonObject] = list(changed.values())
    return cluster.Objects(kind, tuple(values), removed, whole)
