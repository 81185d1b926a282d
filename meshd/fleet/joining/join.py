"""The messages by which a node joins: a line of JSON each, over TLS on the server's port.

ALPN tells them from gRPC. A node that knows only a token first asks for the server's root
certificates, on a connection that it does not trust, and takes the one that the token names; on a
second connection, verified by that one, it hands over the token.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from meshd import wire
from meshd.api.base import UnixSeconds
from meshd.base.errors import UNDECODABLE, InvalidInputError, MeshdError
from meshd.fleet.joining.facts import MeshFacts

ALPN: Final = "meshd-join"
LIMIT: Final = 64 * 1024
"""Bytes of a line."""


class AskRoots(msgspec.Struct, frozen=True, tag=True):
    """A question for the root certificates; anybody may ask."""


class Roots(msgspec.Struct, frozen=True, tag=True):
    pem: str
    now: UnixSeconds
    """The server's clock in Unix seconds: not to be trusted, but to explain what is refused."""
    trust_domain: str


class AskToJoin(msgspec.Struct, frozen=True, tag=True):
    token: str
    node: str
    csr: str
    """PEM."""


class Welcome(msgspec.Struct, frozen=True, tag=True):
    chain: str
    roots: str
    """PEM, both."""
    facts: MeshFacts


class Refused(msgspec.Struct, frozen=True, tag=True):
    reason: str


Message = AskRoots | Roots | AskToJoin | Welcome | Refused
_decoder: Final[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def decode(line: bytes) -> Message:
    """Raises InvalidInputError."""
    try:
        return _decoder.decode(line)
    except UNDECODABLE as error:
        raise InvalidInputError(f"not a message of this version of meshd: {error}") from None


class Reception:
    """The server's end. ``enlist`` asks the identity role; ``roots`` returns the present ones."""

    def __init__(
        self,
        enlist: Callable[[wire.Enlist], Awaitable[wire.Certified]],
        roots: Callable[[], bytes],
        facts: MeshFacts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._enlist = enlist
        self._roots = roots
        self._facts = facts

    async def answer(self, line: bytes) -> bytes:
        """Answer one question."""
        return encode(await self._answer(line))

    async def _answer(self, line: bytes) -> Message:
        try:
            match decode(line):
                case AskRoots():
                    return Roots(self._roots().decode(), self._clock(), self._facts.trust_domain)
                case AskToJoin(token, node, csr):
                    certified = await self._enlist(wire.Enlist(token, node, csr.encode()))
                    return Welcome(certified.chain.decode(), certified.roots.decode(), self._facts)
                case _:
                    return Refused("not a question")
        except MeshdError as error:
            return Refused(str(error))
