"""Checks of the members of WorkloadGroups on this node: when they pass often enough, and how.

What is healthy is decided by pure functions; ``Checker`` asks, each workload on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import grpc
import msgspec

from meshd.errors import UNDECODABLE
from meshd.model.entries import HTTPHealthCheck, ReadinessProbe
from meshd.model.workload import Workload

_SERVING: Final = b"\x08\x01"
"""A grpc.health.v1.HealthCheckResponse whose status is SERVING."""
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_KILLED: Final = 5.0
"""Seconds for a program that was killed to end."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """``streak``: how often the last result came in a row."""

    healthy: bool = False
    passed: bool = False
    streak: int = 0


def step(health: Health, passed: bool, probe: ReadinessProbe) -> Health:
    """After one more check. A new member is not healthy before it has passed."""
    streak = health.streak + 1 if passed == health.passed else 1
    needed = probe.success_threshold if passed else probe.failure_threshold
    healthy = passed if streak >= max(needed, 1) else health.healthy
    return Health(healthy, passed, streak)


async def passes(probe: ReadinessProbe, host: str) -> bool:
    """Whether it passes within its time. ``host``: where the workload is reached."""
    try:
        async with asyncio.timeout(max(probe.timeout_seconds, 1)):
            if probe.http_get:
                return await _get(probe.http_get, host)
            if probe.tcp_socket:
                where = probe.tcp_socket.host or host
                _, writer = await asyncio.open_connection(where, probe.tcp_socket.port)
                writer.close()
                return True
            if probe.grpc:
                return await _serves(host, probe.grpc.port, probe.grpc.service or "")
            return bool(probe.exec) and await _run(probe.exec.command)
    except (OSError, TimeoutError, ValueError):
        return False


async def _get(check: HTTPHealthCheck, host: str) -> bool:
    where = check.host or host
    reader, writer = await asyncio.open_connection(where, check.port)
    try:
        path = check.path if check.path.startswith("/") else f"/{check.path}"
        given = {header.name.lower(): header.value for header in check.http_headers}
        headers = {"host": f"{where}:{check.port}", "user-agent": "meshd-probe", **given}
        lines = [f"{name}: {value}" for name, value in (headers | {"connection": "close"}).items()]
        request = "\r\n".join((f"GET {path} HTTP/1.1", *lines, "", "")).encode()
        if check.scheme == "HTTPS":
            # Few are asked so, and OpenSSL is large.
            from meshd.discovery import tls  # noqa: PLC0415

            answer = await tls.first_line(reader, writer, request)
        else:
            writer.write(request)
            answer = await reader.readline()
        status = answer.split()
        return len(status) > 1 and 200 <= int(status[1]) < 400
    finally:
        writer.close()


async def _serves(host: str, port: int, service: str) -> bool:
    """https://github.com/grpc/grpc/blob/master/doc/health-checking.md, over plain text."""
    name = service.encode()
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(where, options=options) as channel:
        try:
            return await channel.unary_unary(_HEALTH)(message) == _SERVING
        except grpc.aio.AioRpcError:
            return False


async def _run(command: tuple[str, ...]) -> bool:
    """As meshd's own user. It is killed when it takes too long."""
    nothing = asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
    )
    try:
        return await child.wait() == 0
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            async with asyncio.timeout(_KILLED):
                await asyncio.shield(child.wait())


class Checker:
    """``changed`` is called when a workload becomes healthy, or is no more.

    ``record`` is a file with those that are: after a restart they go on as they were.
    """

    def __init__(self, record: Path, changed: Callable[[], None]) -> None:
        self._record = record
        self._changed = changed
        self._health = {uid: Health(healthy=True) for uid in _load(record)}
        self._running: dict[str, tuple[ReadinessProbe, str, asyncio.Task[None]]] = {}

    def is_healthy(self, uid: str) -> bool:
        health = self._health.get(uid)
        return health is not None and health.healthy

    def check(self, wanted: Mapping[str, tuple[Workload, ReadinessProbe]]) -> None:
        """These from now on, and no others. One that is checked already goes on."""
        targets = {uid: (probe, _host_of(one)) for uid, (one, probe) in wanted.items()}
        for uid, (probe, host, task) in list(self._running.items()):
            if targets.get(uid) != (probe, host):
                task.cancel()
                del self._running[uid]
        for uid in self._health.keys() - targets.keys():
            del self._health[uid]
        for uid, (probe, host) in targets.items():
            if uid not in self._running:
                task = asyncio.create_task(self._check_for_ever(uid, probe, host))
                self._running[uid] = (probe, host, task)

    async def close(self) -> None:
        tasks = [task for _, _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _check_for_ever(self, uid: str, probe: ReadinessProbe, host: str) -> None:
        await asyncio.sleep(probe.initial_delay_seconds)
        while True:
            before = self._health.get(uid, Health())
            after = self._health[uid] = step(before, await passes(probe, host), probe)
            if after.healthy != before.healthy:
                self._save()
                self._changed()
            await asyncio.sleep(max(probe.period_seconds, 1))

    def _save(self) -> None:
        healthy = [uid for uid, health in self._health.items() if health.healthy]
        new = self._record.with_name(f".{self._record.name}.new")
        try:
            new.write_bytes(msgspec.json.encode(healthy))
            new.replace(self._record)
        except OSError as error:
            _log.warning(
                "%s: cannot be written: %s; after a restart each has to pass first",
                *(self._record, error.strerror),
                extra={"MESHD_EVENT": "record-lost"},
            )


def _load(record: Path) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(record.read_bytes(), type=tuple[str, ...])
    except (OSError, *UNDECODABLE):
        return ()


def _host_of(workload: Workload) -> str:
    """A service of this host is asked where it needs no way through the mesh."""
    if workload.host or not workload.addresses:
        return "127.0.0.1"
    return workload.addresses[0]
