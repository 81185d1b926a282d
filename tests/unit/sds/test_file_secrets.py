"""Secrets in files: read when they are wanted, followed, and never wrong ones."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from meshd.api.secret_files import SecretFiles
from meshd.base.errors import InvalidInputError
from meshd.sds import file_secrets
from meshd.sds.file_secrets import Files, FileSecrets
from meshd.sds.subscriber import Secrets, Subscriber
from meshd.xds.exchange import Request
from meshd.xds.resources import SECRET
from tests.pem import certificate_pem, key_pem, new_key, revocations_pem
from tests.waiting import PATIENCE


class Place:
    """A directory, and what is served of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wanted: set[str] = set()
        self.served: Files = {}
        self.secrets = FileSecrets(
            (str(directory),), lambda: frozenset(self.wanted), self._publish, lambda: None
        )
        self.pair = SecretFiles(f"{directory}/a.crt", f"{directory}/a.key")
        self.wanted.add(self.pair.name)

    def _publish(self, files: Files) -> None:
        self.served = files

    def write_pair(self, certificate: Any, key: Any) -> None:
        Path(self.pair.certificate).write_bytes(certificate_pem(certificate))
        Path(self.pair.private_key).write_bytes(key_pem(key))

    def look(self) -> list[str]:
        """Gives what is wrong."""
        asyncio.run(self.secrets.look())
        return [state.problem for state in self.secrets.states()]

    def message(self) -> Any:
        found = self.served[self.pair.name]
        assert found
        return secret_pb2.Secret.FromString(found.body)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_pair_is_served_inline_and_followed(place: Place) -> None:
    first, second = new_key(), new_key()
    place.write_pair(first, first)
    assert place.look() == []
    before = place.message()
    assert before.tls_certificate.private_key.inline_bytes == key_pem(first)
    assert not before.tls_certificate.private_key.filename
    place.write_pair(second, second)
    assert place.look() == []
    assert place.message().tls_certificate.private_key.inline_bytes == key_pem(second)


def test_half_of_a_new_pair_leaves_the_one_before_in_use(place: Place) -> None:
    first, second = new_key(), new_key()
    place.write_pair(first, first)
    place.look()
    place.write_pair(second, first)
    (problem,) = place.look()
    assert "does not belong to its certificate" in problem
    assert place.message().tls_certificate.private_key.inline_bytes == key_pem(first)


def test_unreadable_files_do_not_exist_and_the_others_are_served(place: Place) -> None:
    pipe = place.directory / "pipe"
    os.mkfifo(pipe)
    hanging = SecretFiles(authority=str(pipe))
    key = new_key()
    place.write_pair(key, key)
    place.wanted.add(hanging.name)
    (problem,) = place.look()
    assert problem == f"{pipe}: it is a pipe"
    assert place.served[hanging.name] is None
    assert place.message()


def test_an_authority_comes_with_its_revocation_list(place: Place) -> None:
    key = new_key()
    files = SecretFiles(authority=f"{place.directory}/ca", revoked=f"{place.directory}/crl")
    Path(files.authority).write_bytes(certificate_pem(key, ca=True))
    Path(files.revoked).write_bytes(revocations_pem(key))
    place.wanted = {files.name}
    assert place.look() == []
    found = place.served[files.name]
    assert found
    validation = secret_pb2.Secret.FromString(found.body).validation_context
    assert validation.trusted_ca.inline_bytes == certificate_pem_of(files.authority)
    assert validation.crl.inline_bytes == certificate_pem_of(files.revoked)


def certificate_pem_of(path: str) -> bytes:
    return Path(path).read_bytes()


def test_the_authorities_of_the_system_are_served(place: Place) -> None:
    name = SecretFiles(authority="system").name
    place.wanted = {name}
    assert place.look() == []
    found = place.served[name]
    assert found
    assert b"BEGIN CERTIFICATE" in found.body


def test_secrets_that_are_no_longer_asked_for_are_forgotten(place: Place) -> None:
    key = new_key()
    place.write_pair(key, key)
    place.look()
    place.wanted = set()
    place.look()
    assert place.served == {}


def test_a_file_system_that_does_not_answer_holds_up_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, calls = threading.Event(), list[str]()
    read = file_secrets.contents_of

    def slow(files: SecretFiles, directories: tuple[str, ...]) -> tuple[bytes, bytes]:
        if files.authority:
            calls.append(files.name)
            release.wait(PATIENCE)
        return read(files, directories)

    monkeypatch.setattr(file_secrets, "contents_of", slow)
    monkeypatch.setattr(file_secrets, "_PATIENCE", 0.05)
    place.wanted.add(SecretFiles(authority="/nfs/ca.pem").name)
    key = new_key()
    place.write_pair(key, key)

    told = ["/nfs/ca.pem: the file system does not answer"]

    async def scenario() -> None:
        for _ in range(3):
            await place.secrets.look()
        async with asyncio.timeout(PATIENCE):
            # A machine that has too much to do may be late with the other files, too.
            while [state.problem for state in place.secrets.states()] != told:
                await place.secrets.look()

    try:
        asyncio.run(scenario())
    finally:
        release.set()
    assert len(calls) == 1, "one thread waits for it, not one a look"
    assert place.message()


def test_files_are_read_side_by_side(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each that is on a dead file system would hold up all that come after it."""
    together = threading.Barrier(20)
    began: list[str] = []

    def slow(files: SecretFiles, directories: tuple[str, ...]) -> tuple[bytes, bytes]:
        together.wait(PATIENCE)
        began.append(files.name)
        raise InvalidInputError(f"{files.authority}: not there")

    monkeypatch.setattr(file_secrets, "contents_of", slow)
    names = [SecretFiles(authority=f"/nfs/{number}.pem").name for number in range(20)]
    place.wanted = set(names)
    asyncio.run(place.secrets.look())
    assert sorted(began) == sorted(names)
    assert len(asyncio.run(place.secrets.check(names))) == len(names)


def test_a_file_is_judged_alike_by_two_who_look_at_once(place: Place) -> None:
    key = new_key()
    place.write_pair(key, key)

    async def scenario() -> None:
        _, checked = await asyncio.gather(
            place.secrets.look(), place.secrets.check([place.pair.name])
        )
        assert checked == ()

    asyncio.run(scenario())
    assert place.message()


def test_proxies_wait_for_a_first_look_and_hear_what_does_not_exist() -> None:
    name = SecretFiles(authority="/etc/meshd/certs/ca").name
    subscriber = Subscriber()
    subscriber.receive(Request(SECRET, subscribe=(name,)))
    assert subscriber.next(Secrets(awaited=frozenset())) is None
    answer = subscriber.next(Secrets(awaited=frozenset(), files={name: None}))
    assert answer is not None
    assert answer.removed == (name,)
