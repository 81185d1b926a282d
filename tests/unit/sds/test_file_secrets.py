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
from meshd.sds import file_secrets
from meshd.sds.file_secrets import Files, FileSecrets
from meshd.sds.subscriber import Request, Secrets, Subscriber
from tests.pem import certificate_pem, key_pem, new_key, revocations_pem


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


def test_what_cannot_be_read_does_not_exist_and_the_rest_is_served(place: Place) -> None:
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


def test_what_nobody_asks_for_any_more_is_forgotten(place: Place) -> None:
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
            release.wait(10)
        return read(files, directories)

    monkeypatch.setattr(file_secrets, "contents_of", slow)
    monkeypatch.setattr(file_secrets, "_PATIENCE", 0.05)
    place.wanted.add(SecretFiles(authority="/nfs/ca.pem").name)
    key = new_key()
    place.write_pair(key, key)

    async def scenario() -> None:
        for _ in range(3):
            await place.secrets.look()

    asyncio.run(scenario())
    release.set()
    (state,) = place.secrets.states()
    assert state.problem == "/nfs/ca.pem: the file system does not answer"
    assert len(calls) == 1, "one thread waits for it, not one a look"
    assert place.message()


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
    subscriber.receive(Request(subscribe=(name,)))
    assert subscriber.next(Secrets(awaited=frozenset())) is None
    answer = subscriber.next(Secrets(awaited=frozenset(), files={name: None}))
    assert answer is not None
    assert answer.removed == (name,)
