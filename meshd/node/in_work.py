"""Records what the mesh role is putting in force, so that the next one knows what it died of.

Where the configuration comes from a server, its records are noted where they come in.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from meshd.api.base import Key, Object
from meshd.api.write import to_json
from meshd.base.attempts import Attempts
from meshd.config.store import Store
from meshd.model.workload import Workload

_log = logging.getLogger(__name__)
_WORKLOAD: Final = "workload "
_PROVEN: Final = 1.0
"""Seconds after which what was put in force has killed nobody."""


class InWork:
    """The record. ``own``: the configuration was applied here."""

    def __init__(self, path: Path, store: Store, *, own: bool = True) -> None:
        self.attempts = Attempts(path)
        self._store = store
        self._own = own
        if own:
            store.withhold(self._why)
            self._begin_objects(store.objects, starting=True)
        self._before = store.objects
        store.subscribe(self._changed)

    @property
    def problems(self) -> tuple[str, ...]:
        return self.attempts.problems

    @property
    def names(self) -> frozenset[str]:
        return self.attempts.working

    def settled(self, names: Collection[str]) -> None:
        """Note that records are in force."""
        if names:
            asyncio.get_running_loop().call_later(_PROVEN, self._done, names)

    def _done(self, names: Collection[str]) -> None:
        self.attempts.done(names)
        if self.attempts.is_narrowing:
            _log.warning(
                "this role starts anew to find out which of the records that are set aside is at"
                " fault",
                extra={"MESHD_EVENT": "left-out"},
            )
            os.kill(os.getpid(), signal.SIGTERM)

    def ended(self) -> None:
        """Note that the role ends as it was told to."""
        self.attempts.done()

    # ---- objects

    def _why(self, found: Object) -> str:
        name = str(found.key)
        if not self.attempts.knows(name):
            return ""
        return self.attempts.why_left_out(name, _fingerprint(to_json(found)))

    def _changed(self) -> None:
        before, self._before = self._before, self._store.objects
        if self._own:
            news = {key: one for key, one in self._before.items() if before.get(key) is not one}
            self._begin_objects(news)
            kept = {str(key) for key in self._store.known}
            self.attempts.keep_only(lambda name: name in kept or name.startswith(_WORKLOAD))

    def _begin_objects(self, objects: Mapping[Key, Object], *, starting: bool = False) -> None:
        records: dict[str, tuple[str, Any]] = {}
        for key, one in objects.items():
            if starting and not self.attempts.knows(str(key)):
                continue
            value = to_json(one)
            fingerprint = _fingerprint(value)
            if not starting or self.attempts.knows(str(key), fingerprint):
                records[str(key)] = fingerprint, value
        self.attempts.begin(records)

    # ---- workloads of other nodes

    def elsewhere(
        self, told: Iterable[Workload], before: Iterable[Workload], *, starting: bool
    ) -> tuple[Workload, ...]:
        """Return the workloads to put in force. ``starting``: they are from this node's own
        disk."""
        if not self._own:
            return tuple(told)
        kept = tuple(one for one in told if not self.attempts.why_left_out(_name(one), ""))
        old = {_name(one): one for one in before}
        news = (
            one
            for one in kept
            if (self.attempts.knows(_name(one)) if starting else old.get(_name(one)) != one)
        )
        self.attempts.begin({_name(one): ("", msgspec.to_builtins(one)) for one in news})
        return kept


def _name(workload: Workload) -> str:
    """Return a name of bounded length: a hostile node may report anything."""
    return f"{_WORKLOAD}{workload.node}/{workload.uid}"


def _fingerprint(value: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(value), digest_size=8).hexdigest()
