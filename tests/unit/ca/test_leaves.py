"""The keeping of certificates: who has one, who is told, what survives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from meshd import wire
from meshd.base.errors import SystemRefusedError
from meshd.ca.authority import Issued, Request
from meshd.ca.leaves import Identities
from meshd.ca.names import TRUST_BUNDLE
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.model.workload import Identity
from meshd.sds.subscriber import Secrets
from meshd.wire import channel

_A = Identity("cluster.local", "default", "a")
_B = Identity("cluster.local", "default", "b")
_NOW = 1_800_000_000.0
_DEADLINE = 60.0


class _Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = _NOW

    def __call__(self) -> float:
        return self.now


class _Failing:
    """A signer that says no for as long as it is told to."""

    def __init__(self, signer: Standalone) -> None:
        self._signer = signer
        self.problem = ""
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def sign(self, request: Request, now: float) -> Issued:
        self.asked += 1
        await self.answers.wait()
        if self.problem:
            raise SystemRefusedError(self.problem)
        return await self._signer.sign(request, now)

    def roots(self) -> bytes:
        return self._signer.roots()


class _Node:
    """The service with a real store; what it publishes is kept."""

    def __init__(self, directory: Path) -> None:
        self.clock = _Clock()
        (directory / "lib").mkdir(exist_ok=True)
        store = Store(directory / "lib" / "identity", "cluster.local", 10**8)
        self.signer = _Failing(Standalone(store, _NOW))
        self.record = directory / "identities.json"
        self.secrets = Secrets()
        self.service = Identities(
            self.signer, self._publish, self.record, lifetime=100, renew_at=0.5, clock=self.clock
        )
        self._socket = directory / "identity.sock"

    def _publish(self, secrets: Secrets) -> None:
        self.secrets = secrets

    async def until(self, predicate: Callable[[], bool]) -> None:
        async with asyncio.timeout(_DEADLINE):
            while not predicate():  # noqa: ASYNC110 - it is called from inside a step
                await asyncio.sleep(0)

    @property
    def served(self) -> set[str]:
        """Names as a server; each has the other one for clients beside it."""
        names = set(self.secrets.served) - {TRUST_BUNDLE}
        servers = {name for name in names if not name.endswith("#client")}
        assert names == servers | {f"{name}#client" for name in servers}
        return servers

    def version(self, identity: Identity) -> str:
        return self.secrets.served[identity.uri].version

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.service.run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncGenerator[channel.Connection[wire.AnyMessage]]:
        server = await channel.listen(
            self._socket, wire.IDENTITY, self.service.session, uids={os.geteuid()}
        )
        async with await channel.connect(self._socket) as connection:
            yield connection
        server.close()


def _run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


def test_an_allowed_identity_is_served_until_it_is_revoked(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        async with node.running():
            await node.until(lambda: TRUST_BUNDLE in node.secrets.served)
            assert node.secrets.awaited is None
            node.service.allow([_A])
            await node.until(lambda: node.served == {_A.uri})
            first = node.version(_A)
            node.service.allow([_A, _B])
            await node.until(lambda: node.served == {_A.uri, _B.uri})
            assert node.version(_A) == first
            node.service.allow([_B])
            await node.until(lambda: node.served == {_B.uri})
            assert node.secrets.is_decided(_A.uri)
            # Whoever comes back gets a key of its own.
            node.service.allow([_A, _B])
            await node.until(lambda: node.served == {_A.uri, _B.uri})
            assert node.version(_A) != first

    _run(scenario)


def test_a_certificate_is_renewed_when_its_time_has_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        async with node.running():
            node.service.allow([_A])
            await node.until(lambda: node.served == {_A.uri})
            first = node.version(_A)
            node.clock.now += 51
            node.service.allow([_A, _B])  # it wakes, and sees the time
            await node.until(lambda: node.served == {_A.uri, _B.uri})
            await node.until(lambda: node.version(_A) != first)

    _run(scenario)


def test_a_restart_serves_the_same_and_denies_nobody_before_it_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = _Node(tmp_path)
        before.service.allow([_A])
        node = _Node(tmp_path)
        node.service.restore()
        async with node.running():
            await node.until(lambda: node.served == {_A.uri})
            assert not node.secrets.is_decided(_B.uri)
            node.service.allow([_A])
            await node.until(lambda: node.secrets.is_decided(_B.uri))

    _run(scenario)


@pytest.mark.parametrize("text", [b"", b"[1]", b'["nonsense"]', b"{}", b"\xff", b'["\xff"]'])
def test_a_damaged_record_is_one_warning(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        node.record.write_bytes(text)
        node.service.restore()
        async with node.running():
            await node.until(lambda: TRUST_BUNDLE in node.secrets.served)
            assert node.served == set()
            node.service.allow([_A])
            await node.until(lambda: node.served == {_A.uri})
        assert json.loads(node.record.read_bytes()) == [_A.uri]

    with caplog.at_level(logging.WARNING):
        _run(scenario)
    (record,) = caplog.records
    assert "identities.json: not usable" in record.getMessage()


def test_a_record_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        node.record.mkdir()
        async with node.running():
            node.service.allow([_A])
            await node.until(lambda: node.served == {_A.uri})

    with caplog.at_level(logging.WARNING):
        _run(scenario)
    assert "cannot be written" in caplog.records[0].getMessage()


def test_a_failure_is_told_logged_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        node.signer.problem = "the CA is away"
        async with node.running(), node.connected() as connection:
            await connection.send(wire.Allow((_A, _B)))
            await _certificates(connection, lambda found: all(c.problem for c in found))
            node.signer.problem = ""
            node.clock.now += 60
            node.service.allow([_A])
            told = await _certificates(connection, lambda found: all(c.serial for c in found))
            assert [c.problem for c in told] == [""]

    with caplog.at_level(logging.WARNING):
        _run(scenario)
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors == [f"no certificate for {_A.uri}: the CA is away"]


def test_a_name_that_is_none_is_told_and_the_others_are_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        improper = Identity("cluster.local", "a/sa/b", "c")
        async with node.running(), node.connected() as connection:
            await connection.send(wire.Allow((improper, _A)))
            told = await _certificates(
                connection, lambda found: len(found) == 2 and any(c.serial for c in found)
            )
            assert {c.uri: bool(c.problem) for c in told} == {improper.uri: True, _A.uri: False}
            assert node.served == {_A.uri}

    _run(scenario)


def test_the_mesh_role_may_go_and_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        async with node.running():
            async with node.connected() as connection:
                await connection.send(wire.Allow((_A,)))
                told = await _certificates(connection, lambda found: any(c.serial for c in found))
                assert _NOW + 100 <= told[0].expires < _NOW + 101
                assert told[0].serial == node.version(_A)
            assert node.served == {_A.uri}
            async with node.connected() as connection:
                await connection.send(wire.Allow((_A,)))
                again = await _certificates(connection, lambda found: any(c.serial for c in found))
                assert again == told

    _run(scenario)


def test_another_message_than_allow_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        async with node.running(), node.connected() as connection:
            await connection.send(wire.Status())
            answer = await connection.receive()
            assert isinstance(answer, wire.Failed)
            assert "Invalid value 'Status'" in answer.reason

    _run(scenario)


async def _certificates(
    connection: channel.Connection[wire.AnyMessage],
    predicate: Callable[[tuple[wire.CertificateState, ...]], bool],
) -> tuple[wire.CertificateState, ...]:
    """The first message of some certificates that is so."""
    async with asyncio.timeout(_DEADLINE):
        while isinstance(message := await connection.receive(), wire.Certificates):
            if message.certificates and predicate(message.certificates):
                return message.certificates
    raise AssertionError("closed the connection")


def test_a_failed_request_is_repeated_as_soon_as_the_server_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        node.signer.problem = "the server does not answer"
        async with node.running():
            node.service.allow([_A], 1)
            await node.until(lambda: node.signer.asked == 1)
            node.service.allow([_A, _B], 1)
            await node.until(lambda: node.signer.asked == 2)  # for the other: no time has passed
            node.signer.problem = ""
            node.service.allow([_A, _B], 2)
            await node.until(lambda: node.served == {_A.uri, _B.uri})

    _run(scenario)


def test_nobody_is_to_wait_for_what_could_not_be_signed(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = _Node(tmp_path)
        async with node.running():
            node.service.allow([_A], 1)
            await node.until(lambda: node.served == {_A.uri})
            assert node.secrets.late == frozenset()
            node.signer.problem = "the server does not answer"
            node.service.allow([_A, _B], 1)
            # As a server only: what a client is asked for, a connection waits for.
            await node.until(lambda: node.secrets.late == frozenset({_B.uri}))
            node.signer.problem = ""
            node.service.allow([_A, _B], 2)
            await node.until(lambda: node.served == {_A.uri, _B.uri})
            assert node.secrets.late == frozenset()

    _run(scenario)


def test_nobody_is_to_wait_for_a_signer_that_takes_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshd.ca.leaves._SOON", 0.01)

    async def scenario() -> None:
        node = _Node(tmp_path)
        async with node.running():
            node.signer.answers.clear()
            node.service.allow([_A, _B])
            await node.until(lambda: node.secrets.late == frozenset({_A.uri, _B.uri}))
            node.signer.answers.set()
            await node.until(lambda: node.served == {_A.uri, _B.uri})
            assert node.secrets.late == frozenset()

    _run(scenario)
