"""The socket at which the plugin hands over requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from meshd.base.errors import NotReadyError
from meshd.cni import door
from meshd.cni.request import CniError, Request
from meshd.wire import channel
from tests.unit.cni.test_request import RESULT, sent


def _uid(number: int) -> Callable[[object], int]:
    """Whoever connects is this user."""

    def uid(_: object) -> int:
        return number

    return uid


async def asked(path: Path, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def nothing(_: Request) -> None: ...


def answer(path: Path, data: bytes, handle: Callable[[Request], None] = nothing) -> bytes:
    async def handling(request: Request) -> None:
        handle(request)

    async def run() -> bytes:
        async with await door.listen(path / "cni.sock", handling):
            return await asked(path / "cni.sock", data)

    return asyncio.run(run())


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "peer_uid", _uid(0))


@pytest.mark.usefixtures("as_root")
def test_a_request_that_goes_well_is_answered_with_the_result_before(tmp_path: Path) -> None:
    said = answer(tmp_path, sent())
    assert (said[:1], json.loads(said[1:])) == (b"0", RESULT)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(
    ("error", "code"), [(NotReadyError("later"), 11), (CniError(50, "never"), 50)]
)
def test_what_goes_wrong_is_answered_as_the_specification_has_it(
    tmp_path: Path, error: Exception, code: int
) -> None:
    def fail(_: Request) -> None:
        raise error

    said = answer(tmp_path, sent(cniVersion="0.4.0"), fail)
    assert said[:1] == b"1"
    told = json.loads(said[1:])
    assert (told["cniVersion"], told["code"]) == ("0.4.0", code)


@pytest.mark.usefixtures("as_root")
def test_what_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MOST", 100)
    assert answer(tmp_path, sent())[:1] == b"1"


def test_others_than_root_are_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "peer_uid", _uid(65534))
    seen: list[Request] = []
    assert answer(tmp_path, sent(), seen.append) == b""
    assert not seen


@pytest.mark.usefixtures("as_root")
def test_only_its_owner_may_connect(tmp_path: Path) -> None:
    async def run() -> int:
        async def handle(_: Request) -> None: ...

        async with await door.listen(tmp_path / "cni.sock", handle):
            return (tmp_path / "cni.sock").stat().st_mode & 0o777

    assert asyncio.run(run()) == 0o600
