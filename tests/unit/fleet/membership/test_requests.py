"""The identity role comes back without the requests that it dies of."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from meshd import wire
from meshd.base.attempts import Attempts
from meshd.base.errors import InvalidInputError
from meshd.fleet.membership.requests import name_of, noting
from meshd.wire.joining import Peer


class Death(BaseException):
    """Of the process, which strikes nothing off then."""


@pytest.fixture(autouse=True)
def dying(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Attempts.done

    def only_alive(attempts: Attempts, *names: Any) -> None:
        if not isinstance(sys.exc_info()[1], Death):
            done(attempts, *names)

    monkeypatch.setattr(Attempts, "done", only_alive)


async def answer(request: wire.ToAuthority) -> wire.Message:
    if (isinstance(request, wire.Admit) and request.peer.node == "killer") or (
        isinstance(request, wire.Enlist) and b"killer" in request.csr
    ):
        raise Death
    return wire.Done()


def admit(node: str) -> wire.Admit:
    return wire.Admit(Peer(node=node, serial="1", expires=1e12))


def enlist(node: str, csr: bytes) -> wire.Enlist:
    return wire.Enlist("t", node, csr)


def ask(attempts: Attempts, request: wire.ToAuthority) -> wire.Message:
    async def asked() -> wire.Message:
        return await noting(attempts, answer)(request)

    return asyncio.run(asked())


def deaths_of(path: Path, requests: list[wire.ToAuthority]) -> int:
    """How many processes die until one refuses."""
    for deaths, request in enumerate(requests):
        try:
            ask(Attempts(path), request)
        except InvalidInputError as error:
            assert "is left out" in str(error)
            return deaths
        except Death:
            pass
    raise AssertionError("it dies for ever")


def test_a_node_that_kills_is_refused_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    assert deaths_of(path, [admit("killer")] * 10) == 3
    attempts = Attempts(path)
    assert "what node killer asks of the authority is left out" in attempts.problems[0]
    assert isinstance(ask(attempts, admit("other")), wire.Done)


def test_another_name_each_time_does_not_help_a_stranger(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    joining: list[wire.ToAuthority] = [enlist(f"n{number}", b"killer") for number in range(10)]
    assert deaths_of(path, joining) == 3
    assert isinstance(ask(Attempts(path), admit("other")), wire.Done)


def test_requests_of_users_are_never_left_out() -> None:
    for request in (wire.ListNodes(), wire.RemoveNode("a"), wire.CreateToken(60.0)):
        assert name_of(request) is None
