"""The tokens that a server has given out, and who has joined: one file, replaced as a whole.

A change is read, decided and written under a lock: of all that use one token, exactly one wins.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec

from meshd.errors import UNDECODABLE, InvalidInputError, SystemRefusedError
from meshd.identity import tokens
from meshd.identity.disk import Disk, write_whole
from meshd.identity.tokens import Record


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: tuple[Record, ...] = ()
    nodes: dict[str, float] = {}
    """When the certificates of nodes end, in Unix seconds, by name."""


class TokenStore:
    """``directory`` is a directory of our own, 0700."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._path = directory / "tokens.json"
        self._clock = clock

    def create(self, pin: bytes, ttl: float, node: str = "", uses: int = 1) -> tuple[str, Record]:
        """The token, which is nowhere else, and what is kept of it. Raises SystemRefusedError."""
        token = tokens.make(secrets.token_bytes(tokens.RANDOM_BYTES), pin)
        record = tokens.record_of(token, self._clock(), ttl, node, uses)
        with self._locked():
            content = self._load()
            self._save((*content.tokens, record), content.nodes)
        return token.text, record

    def list(self) -> tuple[Record, ...]:
        """Oldest first. Raises InvalidInputError when the file is damaged."""
        return self._load().tokens

    def delete(self, id_: str) -> None:
        """Raises InvalidInputError when it is not there."""
        with self._locked():
            content = self._load()
            left = tuple(record for record in content.tokens if record.id != id_)
            if len(left) == len(content.tokens):
                raise InvalidInputError(f"there is no token {id_}: see meshctl token list")
            self._save(left, content.nodes)

    def redeem(self, text: str, node: str) -> Record:
        """Use it up. When this returns, that is on disk. Raises InvalidInputError."""
        token = tokens.parse(text)
        with self._locked():
            content, now = self._load(), self._clock()
            joined = content.nodes.get(node, 0.0) > now
            used = tokens.redeem(content.tokens, token, node, now, joined=joined)
            after = (used if record.id == used.id else record for record in content.tokens)
            self._save(tuple(after), content.nodes)
        return used

    def certified(self, node: str, expires: float) -> None:
        """The node has a certificate until then. Raises SystemRefusedError."""
        with self._locked():
            content = self._load()
            self._save(content.tokens, {**content.nodes, node: expires})

    def _load(self) -> _Content:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return _Content()
        except OSError as error:
            raise SystemRefusedError(f"{self._path}: cannot be read: {error.strerror}") from None
        try:
            return msgspec.json.decode(raw, type=_Content)
        except UNDECODABLE as error:
            raise InvalidInputError(
                f"{self._path}: damaged ({error}); remove it: tokens that were not used yet are "
                "lost, nodes that have joined are not"
            ) from None

    def _save(self, records: tuple[Record, ...], nodes: dict[str, float]) -> None:
        now = self._clock()
        alive = {node: expires for node, expires in nodes.items() if expires > now}
        kept = _Content(tokens.living(records, now), alive)
        try:
            write_whole(Disk(), self._path, msgspec.json.encode(kept))
        except OSError as error:
            raise SystemRefusedError(
                f"{self._path}: cannot be written: {error.strerror}; nothing was changed"
            ) from None

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        try:
            descriptor = os.open(
                self._directory / "tokens.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise SystemRefusedError(
                f"{self._directory}: cannot be written: {error.strerror}"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
