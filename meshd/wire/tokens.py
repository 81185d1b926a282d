"""meshctl → identity (of a server): the tokens that other nodes join with."""

from __future__ import annotations

from typing import Annotated

import msgspec

from meshd.api.base import Seconds, UnixSeconds
from meshd.model.bounds import Bounds
from meshd.wire.message import Message


class CreateToken(Message, frozen=True):
    """Make a token with which another node can join."""

    ttl: Seconds
    """Seconds."""
    node: str = ""
    """The only node that may use it; empty: any."""
    uses: Annotated[int, msgspec.Meta(ge=1)] = 1
    bounds: Bounds = ()
    """Of whoever joins with it."""


class TokenState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a token. Times in Unix seconds."""

    id: str
    node: str
    created: UnixSeconds
    expires: UnixSeconds
    uses: int
    used_by: tuple[str, ...]
    state: str
    """valid, used or expired."""
    bounds: Bounds = ()


class TokenCreated(Message, frozen=True):
    """A new token; ``token`` is told this once."""

    token: str
    kept: TokenState


class ListTokens(Message, frozen=True):
    """A question for all tokens that are kept."""


class TokenStates(Message, frozen=True):
    tokens: tuple[TokenState, ...]


class DeleteToken(Message, frozen=True):
    id: str


Messages = CreateToken | TokenCreated | ListTokens | TokenStates | DeleteToken
