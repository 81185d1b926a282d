"""Joining over real TLS on the loopback interface: what is trusted, and each way to fail."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.base.errors import InvalidInputError, MeshdError, UnreachableError
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.fleet.joining import join
from meshd.fleet.joining.facts import MeshFacts
from meshd.fleet.joining.join import Reception
from meshd.fleet.joining.joining import join_mesh
from meshd.fleet.joining.node import Credentials, NodeFile
from meshd.fleet.joining.tls_terminator import TlsTerminator
from meshd.fleet.membership import tokens
from meshd.fleet.membership.registration_authority import RegistrationAuthority
from meshd.fleet.membership.token_store import TokenStore
from meshd.fleet.server import istio_ca
from meshd.fleet.server.serving import ServingCertificate


def running(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine as a test, in a loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


TD = "cluster.local"
DAY = 24 * 3600.0
FACTS = MeshFacts(
    trust_domain=TD,
    domain="mesh.local",
    root_namespace="istio-system",
    service_cidr="198.19.0.0/16",
)


@dataclasses.dataclass
class Served:
    address: tuple[str, int]
    tokens: TokenStore
    registration: RegistrationAuthority

    async def token(self) -> str:
        answer = await self.registration.answer(wire.CreateToken(60))
        assert isinstance(answer, wire.TokenCreated)
        return answer.token

    @property
    def used(self) -> int:
        return sum(len(record.used) for record in self.tokens.list())


@contextlib.asynccontextmanager
async def serving(
    directory: Path, clock: Callable[[], float] = time.time, told: str = ""
) -> AsyncGenerator[Served]:
    """``clock``: by which certificates are made. ``told``: roots to tell in place of the own."""
    directory.mkdir(mode=0o700, exist_ok=True)
    signer = Standalone(Store(directory, TD, 1000 * DAY), clock())
    kept = TokenStore(directory, clock)
    registration = RegistrationAuthority(
        signer, kept, trust_domain=TD, node="s", lifetime=DAY, node_lifetime=DAY, clock=clock
    )

    async def certify(request: wire.Message) -> wire.Certified:
        answer = await registration.answer(request)  # type: ignore[arg-type]
        assert isinstance(answer, wire.Certified)
        return answer

    certificate = ServingCertificate(TD, "s", certify)
    await certificate.obtain()
    roots: Callable[[], bytes] = lambda: told.encode() or signer.roots()  # noqa: E731
    reception = Reception(certify, roots, FACTS)
    terminator = TlsTerminator(
        certificate.context,
        (join.ALPN, reception.answer),
        lambda leaf: istio_ca.peer_of(leaf, TD),
        directory / "none.sock",
    )
    port = await terminator.listen("127.0.0.1", 0)
    try:
        yield Served(("127.0.0.1", port), kept, registration)
    finally:
        await terminator.stop()


async def failing(served: Served, token: str, node: str = "a", **more: Callable[[], float]) -> str:
    with pytest.raises(MeshdError) as error:
        await join_mesh(served.address, token, node, **more)
    assert "\n" not in str(error.value)
    assert token not in str(error.value)
    return str(error.value)


@running
async def test_a_token_gives_credentials_and_the_meshs_facts(tmp_path: Path) -> None:
    async with serving(tmp_path / "ca") as served:
        credentials, facts = await join_mesh(served.address, await served.token(), "a")
    assert facts == FACTS
    assert credentials.uri == "spiffe://cluster.local/node/a"
    assert served.used == 1
    file = NodeFile(tmp_path / "node.pem")
    file.save(credentials)
    assert NodeFile(tmp_path / "node.pem").load() == credentials
    assert (tmp_path / "node.pem").stat().st_mode & 0o777 == 0o600


@running
async def test_another_authority_never_sees_the_token(tmp_path: Path) -> None:
    async with serving(tmp_path / "a") as ours, serving(tmp_path / "b") as other:
        token = await ours.token()
        assert "another certificate authority" in await failing(other, token)


@running
async def test_a_server_with_the_right_root_but_not_its_key_never_sees_the_token(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "a") as ours:
        token = await ours.token()
        root = (tmp_path / "a" / "root-cert.pem").read_text()
        async with serving(tmp_path / "b", told=root) as impostor:
            assert "not one of the authority that the token names" in await failing(impostor, token)
            assert impostor.used == 0
        assert ours.used == 0


@pytest.mark.parametrize(
    ("off", "words"), [(-DAY, "1 day behind"), (DAY, "1 day ahead of"), (-2 * DAY, "2 days behind")]
)
@running
async def test_a_clock_that_is_off_is_named_and_costs_no_token(
    tmp_path: Path, off: float, words: str
) -> None:
    async with serving(tmp_path / "ca") as served:
        said = await failing(served, await served.token(), clock=lambda: time.time() + off)
        assert words in said
        assert "set the clock" in said
        assert served.used == 0


@running
async def test_certificates_of_tomorrow_are_not_valid_yet(tmp_path: Path) -> None:
    async with serving(tmp_path / "ca", clock=lambda: time.time() + DAY) as served:
        said = await failing(served, await served.token())
        assert "valid from" in said
        assert "set the clock" in said


@running
async def test_tokens_that_do_not_serve_are_refused_by_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path / "ca") as served:
        token = await served.token()
        await join_mesh(served.address, token, "a")
        assert "was used already, by node a" in await failing(served, token, "b")
        pin = tokens.parse(token).pin
        forged = tokens.make(b"f" * tokens.RANDOM_BYTES, pin).text
        assert "does not know this token" in await failing(served, forged)
        assert "that is the server's own name" in await failing(served, await served.token(), "s")


@running
async def test_of_many_that_join_with_one_token_one_does(tmp_path: Path) -> None:
    async with serving(tmp_path / "ca") as served:
        token = await served.token()
        joins = (join_mesh(served.address, token, f"n{number}") for number in range(12))
        results = await asyncio.gather(*joins, return_exceptions=True)
        assert sum(not isinstance(result, Exception) for result in results) == 1
        assert all(isinstance(r, InvalidInputError) for r in results if isinstance(r, Exception))


@running
async def test_a_peer_that_is_no_server_is_told_apart(tmp_path: Path) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def chatter(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp.example ready\r\n")
        writer.close()

    token = tokens.make(b"x" * tokens.RANDOM_BYTES, b"p" * 32).text
    for behaviour in (hang_up, chatter):
        async with await asyncio.start_server(behaviour, "127.0.0.1", 0) as server:
            with pytest.raises(UnreachableError, match="not a meshd server"):
                await join_mesh(server.sockets[0].getsockname(), token, "a")


@running
async def test_lines_that_are_no_questions_end_the_connection_only(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with serving(tmp_path / "ca") as served:
        for line in (b"\n", b"{}\n", b"x" * (2 * join.LIMIT) + b"\n", b'{"type":"Welcome"}\n'):
            reader, writer = await asyncio.open_connection(*served.address, ssl=context)
            writer.write(line)
            answer = await reader.readline()
            assert b"Welcome" not in answer or b"Refused" in answer
            writer.close()
        await join_mesh(served.address, await served.token(), "a")
        assert served.used == 1


def test_a_damaged_file_of_credentials_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "node.pem"
    with pytest.raises(InvalidInputError, match="run: meshctl join"):
        NodeFile(path).load()
    path.write_bytes(b"half")
    with pytest.raises(InvalidInputError, match="damaged"):
        NodeFile(path).load()
    assert "key" not in repr(Credentials(b"key", b"", b""))
