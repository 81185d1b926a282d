"""Listeners as bytes, put together from their choices, which others share, and the rest.

The choice of a scope's listener knows all services, and is the same in all scopes that see the
same: so it is printed once, and kept once. That bytes may be put together so is the encoding's own
promise, as for route configurations.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Final

import msgspec
from envoy.config.listener.v3 import listener_pb2

from meshd.compile.envoy.choices import matcher
from meshd.compile.envoy.listeners import listener
from meshd.compile.plan.choices import Way
from meshd.compile.plan.listeners import Listener

_DIGEST: Final = 16
"""Bytes of a digest."""
_Listener = listener_pb2.Listener


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PrintedChoice:
    """A choice, as the field of a listener that holds it and nothing else."""

    way: Way
    body: bytes = dataclasses.field(repr=False)
    digest: bytes


def printed_choice(way: Way) -> PrintedChoice:
    body = _bytes(_Listener(filter_chain_matcher=matcher(way)))
    return PrintedChoice(way, body, _digest(body))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PrintedListener:
    """A listener whose choice is that of other listeners, too."""

    name: str
    rest: bytes = dataclasses.field(repr=False)
    """All but the choice."""
    choice: PrintedChoice
    behind: str = ""
    """The name of the listener to which it leaves some connections."""
    left: frozenset[str] = dataclasses.field(default=frozenset(), repr=False)
    """Which connections these are."""

    @classmethod
    def of(
        cls,
        plan: Listener,
        choice: PrintedChoice,
        behind: str = "",
        left: frozenset[str] = frozenset(),
    ) -> PrintedListener:
        """Return a listener; ``choice``: the plan's, printed."""
        rest = listener(msgspec.structs.replace(plan, choice=None))
        return cls(plan.name, _bytes(rest), choice, behind, left)

    def __bytes__(self) -> bytes:
        return self.rest + self.choice.body

    @property
    def version(self) -> str:
        """Return a text that is equal exactly when the bytes are."""
        return _digest(_digest(self.rest) + self.choice.digest)[:8].hex()

    def message(self) -> _Listener:
        return _Listener.FromString(bytes(self))


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _bytes(message: _Listener) -> bytes:
    return message.SerializeToString(deterministic=True)
