"""The tokens that a server has made, and its members: one file, replaced as a whole.

A change is read, decided and written under a lock: of all nodes that use one token, exactly one
joins. A certificate is handed out only after its record is written.
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

from meshd.base.disk import Disk, write_whole
from meshd.base.errors import UNDECODABLE, InvalidInputError, SystemRefusedError
from meshd.ca.authority import Issued
from meshd.fleet.membership import members, tokens
from meshd.fleet.membership.members import Attendance, Member
from meshd.fleet.membership.tokens import Record
from meshd.model.bounds import Bounds


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: tuple[Record, ...] = ()
    members: dict[str, Member] = {}
    """By name."""


class TokenStore:
    """The file of tokens and members; ``directory`` is a directory of our own, 0700."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._path = directory / "tokens.json"
        self._clock = clock

    # ---- tokens

    def create(
        self, pin: bytes, ttl: float, *, node: str = "", uses: int = 1, bounds: Bounds = ()
    ) -> tuple[str, Record]:
        """Make a token; return its text, which is nowhere else, and its record. Raises
        SystemRefusedError."""
        token = tokens.make(secrets.token_bytes(tokens.RANDOM_BYTES), pin)
        record = tokens.record_of(token, self._clock(), ttl, node=node, uses=uses, bounds=bounds)
        with self._locked():
            content = self._load()
            self._save((*content.tokens, record), content.members)
        return token.text, record

    def list(self) -> tuple[Record, ...]:
        """Return the records, oldest first. Raises InvalidInputError if the file is damaged."""
        return self._load().tokens

    def delete(self, id_: str) -> None:
        """Raises InvalidInputError when it is not there."""
        with self._locked():
            content = self._load()
            left = tuple(record for record in content.tokens if record.id != id_)
            if len(left) == len(content.tokens):
                raise InvalidInputError(f"there is no token {id_}: see meshctl token list")
            self._save(left, content.members)

    # ---- nodes

    def join(self, text: str, node: str, issue: Callable[[], Issued]) -> Issued:
        """Issue a certificate for a token and spend it. Raises MeshdError: then the token is not
        spent."""
        token = tokens.parse(text)
        with self._locked():
            content, now = self._load(), self._clock()
            before = content.members.get(node)
            joined = before is not None and now < before.expires
            used = tokens.redeem(content.tokens, token, node, now, joined=joined)
            issued = issue()
            member = Member(
                joined=now,
                expires=issued.expires,
                serials=(f"{issued.serial:x}",),
                bounds=used.bounds,
            )
            after = (used if record.id == used.id else record for record in content.tokens)
            self._save(tuple(after), {**content.members, node: member})
        return issued

    def renew(self, node: str, proof: str, issue: Callable[[], Issued]) -> Issued:
        """Renew a certificate; ``proof`` is the serial of the present one. Raises MeshdError."""
        with self._locked():
            content = self._load()
            member = members.admitted(content.members, node, proof)
            issued = issue()
            after = members.renewed(member, proof, f"{issued.serial:x}", issued.expires)
            self._save(content.tokens, {**content.members, node: after})
        return issued

    def admitted(self, node: str, proof: str) -> Member:
        """Raises InvalidInputError when it does not belong to the mesh."""
        return members.admitted(self._load().members, node, proof)

    def attended(self, node: str, proof: str, machine: str) -> Attendance:
        """Record that a node has connected. Raises MeshdError if it does not belong to the mesh."""
        with self._locked():
            content = self._load()
            found = members.attended(content.members, node, proof, machine, self._clock())
            if found.member != content.members[node]:
                self._save(content.tokens, {**content.members, node: found.member})
        return found

    def members(self) -> dict[str, Member]:
        """Return the members by name. Raises InvalidInputError if the file is damaged."""
        return self._load().members

    def remove(self, node: str) -> None:
        """Raises InvalidInputError when it is not there."""
        with self._locked():
            content = self._load()
            _known(content, node)
            left = {name: one for name, one in content.members.items() if name != node}
            self._save(tokens.without(content.tokens, node), left)

    def bind(self, node: str, bounds: Bounds) -> None:
        """Raises InvalidInputError when it is not there."""
        with self._locked():
            content = self._load()
            after = msgspec.structs.replace(_known(content, node), bounds=bounds)
            self._save(content.tokens, {**content.members, node: after})

    # ---- the file

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
                f"{self._path}: damaged ({error}); put back a copy, or remove it: then all nodes "
                "have to join again, and go on with what they have until they do"
            ) from None

    def _save(self, records: tuple[Record, ...], nodes: dict[str, Member]) -> None:
        now = self._clock()
        kept = _Content(tokens.living(records, now), members.living(nodes, now))
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


def _known(content: _Content, node: str) -> Member:
    if found := content.members.get(node):
        return found
    raise InvalidInputError(f"there is no node {node}: see meshctl node list")
