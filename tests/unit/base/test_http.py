from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshd.base import http
from meshd.base.errors import UnreachableError


def asked(socket: Path, said: bytes, *, hangs: bool = False, most: int = 100) -> tuple[int, bytes]:
    """Return what a client learns of a server that says this."""
    body = bytearray()
    ended = asyncio.Event()

    def take(_: int, part: bytes) -> None:
        body.extend(part)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        if hangs:
            await reader.read()
        writer.close()
        ended.set()

    async def run() -> int:
        async with await asyncio.start_unix_server(answer, socket):
            timeout = 0.2 if hangs else 60.0
            try:
                return await http.ask(socket, "GET", "/stats", take, timeout=timeout, most=most)
            finally:
                await ended.wait()

    return asyncio.run(run()), bytes(body)


def test_the_status_and_the_whole_body_are_passed_on(tmp_path: Path) -> None:
    head = b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n"
    said = head + b"2\r\nno\r\n5\r\n such\r\n0\r\n\r\n"

    assert asked(tmp_path / "s", said) == (404, b"no such")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
            "without sending complete message body",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n" + b"x" * 101, "more than 100 bytes"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "illegal status line"),
        (b"", "closed without an answer"),
    ],
)
def test_an_incomplete_http_answer_is_refused(tmp_path: Path, said: bytes, reason: str) -> None:
    with pytest.raises(UnreachableError, match=reason):
        asked(tmp_path / "s", said)


def test_an_answer_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    said = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"

    with pytest.raises(UnreachableError, match=r"no answer within 0\.2 s"):
        asked(tmp_path / "s", said, hangs=True)


def test_a_socket_at_which_nobody_listens_is_named_as_the_kernel_does(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="No such file"):
        asyncio.run(http.ask(tmp_path / "s", "GET", "/", print, timeout=60))
