"""Keys are fetched from issuers that mean well, and from those that do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshd.api.request_authentication.key_sets import key_set
from meshd.issuers.fetching import fetched
from meshd.model.issuer import KeyAnswer, KeyQuestion, Reach
from tests import tokens
from tests.pem import certificate_pem, key_pem, new_key
from tests.tokens import Key
from tests.waiting import PATIENCE

KEYS = tokens.key_set(Key())
HERE = Reach(allowed=("127.0.0.0/8",))
Say = Callable[[str, socket.socket], None]
CONFIGURATION = "/.well-known/openid-configuration"


def answer(body: str | bytes, status: str = "200 OK", *headers: str) -> bytes:
    content = body if isinstance(body, bytes) else body.encode()
    lines = (f"HTTP/1.1 {status}", f"content-length: {len(content)}", *headers, "", "")
    return "\r\n".join(lines).encode() + content


class Issuer:
    """Answers each request by what ``say`` does with its path and the connection."""

    def __init__(self, say: Say, context: ssl.SSLContext | None = None) -> None:
        self._say = say
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def url(self, path: str = "/keys", scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._context is None:
                self._answer(client)
                return
            with self._context.wrap_socket(client, server_side=True) as secured:
                self._answer(secured)

    def _answer(self, client: socket.socket) -> None:
        head = client.recv(65536).decode()
        self.asked.append(head)
        self._say(head.split(" ")[1], client)
        client.shutdown(socket.SHUT_WR)


@pytest.fixture
def issuer() -> Iterator[Callable[..., Issuer]]:
    made: list[Issuer] = []

    def make(say: Say | dict[str, bytes], context: ssl.SSLContext | None = None) -> Issuer:
        def page(path: str, client: socket.socket) -> None:
            assert not callable(say)
            client.sendall(say[path])

        made.append(Issuer(say if callable(say) else page, context))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ask(url: str, reach: Reach = HERE, authorities: str = "", seconds: float = 20) -> KeyAnswer:
    return asyncio.run(fetched(KeyQuestion(url, seconds, reach, authorities)))


def test_keys_are_fetched(issuer: Callable[..., Issuer]) -> None:
    found = issuer({"/keys?x=1": answer(KEYS)})
    assert ask(found.url("/keys?x=1")) == KeyAnswer(keys=key_set(KEYS).text)
    head = found.asked[0].lower()
    assert f"host: 127.0.0.1:{found.port}\r\n" in head
    assert "authorization" not in head


def test_a_host_that_is_not_allowed_is_not_asked(issuer: Callable[..., Issuer]) -> None:
    found = issuer({"/keys": answer(KEYS)})
    for host in ("127.0.0.1", "localhost"):
        refused = ask(found.url(host=host), Reach())
        assert not refused.keys
        assert "is not asked" in refused.problem
    assert found.asked == []


def test_redirections_are_followed_a_few_times_and_not_to_where_nobody_is_asked(
    issuer: Callable[..., Issuer],
) -> None:
    def to(place: str) -> bytes:
        return answer("", "302 Found", f"location: {place}")

    pages = {"/a": to("/b"), "/b": to("/keys"), "/keys": answer(KEYS), "/loop": to("/loop")}
    pages |= {"/inside": to("http://169.254.169.254/latest"), "/file": to("file:///etc/passwd")}
    pages |= {"/nowhere": answer("", "302 Found"), "/user": to("http://a:b@127.0.0.1/")}
    found = issuer(pages)
    assert ask(found.url("/a")).keys
    for path, why in (
        ("/loop", "redirections"),
        ("/inside", "link-local"),
        ("/file", "leads elsewhere"),
        ("/user", "leads elsewhere"),
        ("/nowhere", "answers 302"),
    ):
        refused = ask(found.url(path))
        assert (refused.keys, why in refused.problem) == ("", True), refused.problem


def test_an_issuer_is_asked_where_its_keys_are(issuer: Callable[..., Issuer]) -> None:
    pages: dict[str, bytes] = {"/keys": answer(KEYS)}
    found = issuer(pages)

    def configured(issuer_is: str, keys_are: str) -> KeyAnswer:
        document = {"issuer": issuer_is, "jwks_uri": keys_are, "other": [1]}
        pages[f"/tenant{CONFIGURATION}"] = answer(json.dumps(document))
        return ask(found.url(f"/tenant{CONFIGURATION}"))

    assert configured(found.url("/tenant"), found.url("/keys")).keys
    assert configured(found.url("/tenant/"), "/keys").keys
    assert "another issuer" in configured(found.url("/other"), found.url("/keys")).problem
    assert "link-local" in configured(found.url("/tenant"), "http://169.254.169.254/").problem
    pages[f"/tenant{CONFIGURATION}"] = answer("[]")
    assert "no configuration" in ask(found.url(f"/tenant{CONFIGURATION}")).problem


MANY = json.dumps({"keys": [Key().public()] * 1000})
HOSTILE: list[tuple[bytes, str]] = [
    (answer(KEYS, "500 No"), "answers 500"),
    (answer(KEYS, "401 No"), "answers 401"),
    (answer(""), "no JSON Web Key Set"),
    (answer("{"), "no JSON Web Key Set"),
    (answer("[" * 100_000), "no JSON Web Key Set"),
    (answer(b"\xff\xfe"), "no UTF-8"),
    (answer('{"keys": []}'), "has no keys"),
    (answer('{"keys": [{"kty": "oct", "k": "AAAA"}]}'), "is a secret"),
    (answer(MANY), "at most 100"),
    (answer(b" " * 300_000), "more than 262144 bytes"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n" + b" " * 400_000, "more than"),
    (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 400_000, "too long"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}", "without"),
    (b"", "without an answer"),
    (b"SSH-2.0-x\r\n", ""),
]


@pytest.mark.parametrize(("said", "why"), HOSTILE)
def test_a_hostile_answer_is_no_set_of_keys(
    issuer: Callable[..., Issuer], said: bytes, why: str
) -> None:
    refused = ask(issuer({"/keys": said}).url())
    assert (refused.keys, bool(refused.problem)) == ("", True)
    assert why in refused.problem


def test_an_answer_that_comes_slowly_is_given_up(issuer: Callable[..., Issuer]) -> None:
    stopped = threading.Event()

    def drip(_: str, client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not stopped.wait(0.01):
            client.sendall(b" ")

    refused = ask(issuer(drip).url(), seconds=0.2)
    stopped.set()
    assert "no whole answer within 0.2 s" in refused.problem


@pytest.fixture
def trusted(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """The server's side for ``localhost``, and the file of its authority."""
    key = new_key()
    chain = certificate_pem(key, "localhost", ca=True)
    (tmp_path / "cert.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_text(key_pem(key).decode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context, str(tmp_path / "cert.pem")


def test_tls_is_checked(issuer: Callable[..., Issuer], trusted: tuple[ssl.SSLContext, str]) -> None:
    context, authorities = trusted
    found = issuer({"/keys": answer(KEYS)}, context)
    named, other = (found.url(scheme="https", host=host) for host in ("localhost", "127.0.0.1"))
    reach = Reach(allowed=("127.0.0.0/8", "::1/128"))
    assert ask(named, reach, authorities).keys
    for url, known in ((named, ""), (other, authorities)):
        refused = ask(url, reach, known)
        assert "certificate" in refused.problem.lower(), refused
    assert "missing.pem" in ask(named, reach, "/missing.pem").problem


def test_https_does_not_lead_to_http(
    issuer: Callable[..., Issuer], trusted: tuple[ssl.SSLContext, str]
) -> None:
    context, authorities = trusted
    plain = issuer({"/keys": answer(KEYS)})
    found = issuer({"/keys": answer("", "302 Found", f"location: {plain.url()}")}, context)
    reach = Reach(allowed=("127.0.0.0/8", "::1/128"))
    refused = ask(found.url(scheme="https", host="localhost"), reach, authorities)
    assert "not https" in refused.problem
    assert plain.asked == []


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    refused = ask(f"http://127.0.0.1:{port}/keys", seconds=PATIENCE)
    assert "refused" in refused.problem.lower()
