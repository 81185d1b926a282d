"""Join tokens: their format, and whether one may be used. Pure.

A token is ``meshd1.`` and 62 bytes in base64 (RFC 4648, URL-safe): 6 that name it, 20 that are
secret, the SHA-256 of the server's root certificate, and 4 of a checksum. Only the SHA-256 of the
secret is kept: 160 random bits need no slow hash.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from meshd.api.base import UnixSeconds
from meshd.base.errors import InvalidInputError
from meshd.base.moments import date
from meshd.model.bounds import Bounds

_PREFIX: Final = "meshd1."
_ID: Final = 6
_SECRET: Final = 20
_PIN: Final = 32
_CHECK: Final = 4
_LENGTH: Final = len(_PREFIX) + -(-(_ID + _SECRET + _PIN + _CHECK) * 4 // 3)
RANDOM_BYTES: Final = _ID + _SECRET
KEPT_AFTER_END: Final = 7 * 24 * 3600.0
"""Seconds for which a token that has expired is kept, so that it can be said why it is refused."""


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """A token in the hands of a node that joins."""

    id: str
    secret: bytes = dataclasses.field(repr=False)
    pin: bytes
    """SHA-256 of the server's root certificate in DER."""

    @property
    def text(self) -> str:
        body = bytes.fromhex(self.id) + self.secret + self.pin
        return _PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")


class Use(msgspec.Struct, frozen=True):
    node: str
    at: UnixSeconds


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The server's record of a token. Times in Unix seconds."""

    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{12}\Z")]
    hash: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    """SHA-256 of the secret."""
    created: UnixSeconds
    expires: UnixSeconds
    node: str = ""
    """The only node that may use it; empty: any."""
    uses: int = 1
    """How often it may be used."""
    used: tuple[Use, ...] = ()
    bounds: Bounds = ()
    """Of who joins with it."""


def make(random: bytes, pin: bytes) -> Token:
    """Make a token from ``random``, RANDOM_BYTES that nobody can guess."""
    return Token(random[:_ID].hex(), random[_ID:RANDOM_BYTES], pin)


def parse(text: str) -> Token:
    """Raises InvalidInputError, which never shows the token."""
    text = text.strip()
    if not text.startswith(_PREFIX):
        raise InvalidInputError(
            f'not a join token (tokens begin with "{_PREFIX}"); make one on the server with: '
            "meshctl token create"
        )
    if len(text) != _LENGTH:
        what = "incomplete" if len(text) < _LENGTH else "too long"
        raise InvalidInputError(
            f"the token is {what}: {len(text)} characters, not {_LENGTH}; copy all of it"
        )
    padded = text.removeprefix(_PREFIX) + "=" * (-(_LENGTH - len(_PREFIX)) % 4)
    try:
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    body, check = raw[:-_CHECK], raw[-_CHECK:]
    token = make(body, body[RANDOM_BYTES:])
    # Compared as text, too: base64 has bits at its end that mean nothing.
    if not raw or not hmac.compare_digest(check, _check(body)) or token.text != text:
        raise InvalidInputError("the token is damaged: copy it again")
    return token


def _check(body: bytes) -> bytes:
    return hashlib.sha256(_PREFIX.encode() + body).digest()[:_CHECK]


def hash_secret(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def pin_of(certificate: bytes) -> bytes:
    """Return the hash of a ``certificate`` in DER."""
    return hashlib.sha256(certificate).digest()


def record_of(
    token: Token, now: float, ttl: float, *, node: str = "", uses: int = 1, bounds: Bounds = ()
) -> Record:
    return Record(
        id=token.id,
        hash=hash_secret(token.secret),
        created=now,
        expires=now + ttl,
        node=node,
        uses=uses,
        bounds=bounds,
    )


def redeem(
    records: Iterable[Record], token: Token, node: str, now: float, *, joined: bool = False
) -> Record:
    """Return the record after the node has used the token. Raises InvalidInputError.

    ``joined``: a node of that name has a certificate already. Only a token that was made for the
    name gives another, so that a token for any node never makes a machine pass for a certain one.
    """
    found = next((record for record in records if record.id == token.id), None)
    # A token that is not known takes as long as one whose secret is wrong.
    kept = found.hash if found else hash_secret(b"")
    right = hmac.compare_digest(kept, hash_secret(token.secret))
    if found is None or not right:
        raise InvalidInputError(
            "the server does not know this token: it was deleted, or is another server's; make "
            "one there with: meshctl token create"
        )
    again = "make another on the server with: meshctl token create"
    if len(found.used) >= found.uses:
        last = found.used[-1]
        raise InvalidInputError(
            f"token {found.id} was used already, by node {last.node} on {date(last.at)}; {again}"
        )
    if now >= found.expires:
        raise InvalidInputError(f"token {found.id} expired on {date(found.expires)}; {again}")
    if found.node and found.node != node:
        raise InvalidInputError(
            f"token {found.id} is for node {found.node}, and this is node {node}; {again} "
            f"--node {node}"
        )
    if joined and found.node != node:
        raise InvalidInputError(
            f"a node {node} has joined already: give this one another name (--node NAME), or, if "
            f"it is to take that one's place, {again} --node {node}"
        )
    return msgspec.structs.replace(found, used=(*found.used, Use(node, now)))


def without(records: Iterable[Record], node: str) -> tuple[Record, ...]:
    """Return the records after a node was removed: tokens that it used are void."""
    return tuple(
        msgspec.structs.replace(record, uses=len(record.used))
        if any(use.node == node for use in record.used)
        else record
        for record in records
    )


def living(records: Iterable[Record], now: float) -> tuple[Record, ...]:
    """Return the records without those that are too old to be asked about."""
    return tuple(record for record in records if now < record.expires + KEPT_AFTER_END)


def state_of(record: Record, now: float) -> str:
    """Return valid, used or expired."""
    if len(record.used) >= record.uses:
        return "used"
    return "expired" if now >= record.expires else "valid"
