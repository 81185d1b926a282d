"""Checks the health of WorkloadGroups' members on this node.

Pure functions decide what is healthy; ``Checker`` probes each workload on its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import grpc
import msgspec

from meshd.api.service_entry.types import HTTPHealthCheck, ReadinessProbe
from meshd.base import kept_file, tasks
from meshd.base.disk import replace
from meshd.base.errors import SystemRefusedError
from meshd.base.unwritten import Unwritten
from meshd.model.workload import Workload
from meshd.workloads.probe_connections import connect, relayed

_SERVING: Final = b"\x08\x01"
"""A grpc.health.v1.HealthCheckResponse whose status is SERVING."""
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
Run = Callable[[Workload, tuple[str, ...], float], Awaitable[bool]]
"""Runs a program with the rights of a workload: whether it ends well within that many seconds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """The results so far. ``streak``: how often the last result came in a row."""

    healthy: bool = False
    passed: bool = False
    streak: int = 0


def step(health: Health, passed: bool, probe: ReadinessProbe) -> Health:
    """Return the health after one more check. A new member is not healthy before it has passed."""
    streak = health.streak + 1 if passed == health.passed else 1
    needed = probe.success_threshold if passed else probe.failure_threshold
    healthy = passed if streak >= max(needed, 1) else health.healthy
    return Health(healthy, passed, streak)


async def passes(probe: ReadinessProbe, workload: Workload, run: Run) -> bool:
    """Return whether the probe passes in time. Nothing but the workload itself is asked."""
    try:
        async with asyncio.timeout(max(probe.timeout_seconds, 1)):
            if probe.exec:
                return await run(workload, probe.exec.command, float(probe.timeout_seconds))
            asked = probe.http_get or probe.tcp_socket
            where = own_address(workload, (asked.host if asked else "") or "")
            if not where:
                return False
            if probe.http_get:
                return await _get(probe.http_get, where)
            if probe.tcp_socket:
                _, writer = await connect(where, probe.tcp_socket.port)
                writer.close()
                return True
            return bool(probe.grpc) and await _serves(
                where, probe.grpc.port, probe.grpc.service or ""
            )
    except (OSError, TimeoutError, ValueError):
        return False


async def _get(check: HTTPHealthCheck, where: str) -> bool:
    reader, writer = await connect(where, check.port)
    try:
        path = check.path if check.path.startswith("/") else f"/{check.path}"
        given = {header.name.lower(): header.value for header in check.http_headers}
        headers = {"host": f"{where}:{check.port}", "user-agent": "meshd-probe", **given}
        lines = [f"{name}: {value}" for name, value in (headers | {"connection": "close"}).items()]
        request = "\r\n".join((f"GET {path} HTTP/1.1", *lines, "", "")).encode()
        if check.scheme == "HTTPS":
            # Few are asked so, and OpenSSL is large.
            from meshd.workloads import tls  # noqa: PLC0415

            answer = await tls.first_line(reader, writer, request)
        else:
            writer.write(request)
            answer = await reader.readline()
        status = answer.split()
        return len(status) > 1 and 200 <= int(status[1]) < 400
    finally:
        writer.close()


async def _serves(host: str, port: int, service: str) -> bool:
    """Ask gRPC's health service, in plaintext.

    https://github.com/grpc/grpc/blob/master/doc/health-checking.md
    """
    name = service.encode()
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    options = (
        ("grpc.default_authority", where),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )
    async with (
        relayed(host, port) as target,
        grpc.aio.insecure_channel(target, options=options) as channel,
    ):
        try:
            return await channel.unary_unary(_HEALTH)(message) == _SERVING
        except grpc.aio.AioRpcError:
            return False


class _Target(msgspec.Struct, frozen=True):
    """The part of a workload on which a check depends: if it changes, the check begins again."""

    probe: ReadinessProbe
    addresses: tuple[str, ...]
    netns: str
    cgroup: str

    @classmethod
    def of(cls, workload: Workload, probe: ReadinessProbe) -> _Target:
        cgroup = workload.host.cgroup if workload.host else ""
        return cls(probe, workload.addresses, workload.netns, cgroup)


class Checker:
    """Runs the checks.

    ``changed`` is called when a workload becomes healthy, or is no longer. ``record`` is a file of
    the healthy ones: after a restart they stay healthy.
    """

    def __init__(self, record: Path, changed: Callable[[], None], run: Run) -> None:
        self._record = record
        self._changed = changed
        self._run = run
        self._unwritten = Unwritten(record)
        healthy = kept_file.load(record, _healthy.decode, "each has to pass its probe first") or ()
        self._health = {uid: Health(healthy=True) for uid in healthy}
        self._running: dict[str, tuple[_Target, asyncio.Task[None]]] = {}

    def is_healthy(self, uid: str) -> bool:
        health = self._health.get(uid)
        return health is not None and health.healthy

    def check(self, wanted: Mapping[str, tuple[Workload, ReadinessProbe]]) -> None:
        """Check these from now on, and no others. A check that runs already goes on."""
        targets = {uid: _Target.of(one, probe) for uid, (one, probe) in wanted.items()}
        for uid, (target, task) in list(self._running.items()):
            if targets.get(uid) != target:
                task.cancel()
                del self._running[uid]
        for uid in self._health.keys() - targets.keys():
            del self._health[uid]
        for uid, target in targets.items():
            if uid not in self._running:
                workload, probe = wanted[uid]
                check = functools.partial(self._check_for_ever, workload, probe)
                task = tasks.keep(check, f"the health check of {uid}")
                self._running[uid] = (target, task)

    async def close(self) -> None:
        running = [task for _, task in self._running.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _check_for_ever(self, workload: Workload, probe: ReadinessProbe) -> None:
        uid = workload.uid
        await asyncio.sleep(probe.initial_delay_seconds)
        while True:
            before = self._health.get(uid, Health())
            after = self._health[uid] = step(
                before, await passes(probe, workload, self._run), probe
            )
            if after.healthy != before.healthy:
                self._save()
                self._changed()
            await asyncio.sleep(max(probe.period_seconds, 1))

    def _save(self) -> None:
        healthy = [uid for uid, health in self._health.items() if health.healthy]
        try:
            replace(self._record, msgspec.json.encode(healthy), durable=False)
        except SystemRefusedError as error:
            self._unwritten.note(f"{error}; after a restart each has to pass first")
        else:
            self._unwritten.note("")


_healthy: Final = msgspec.json.Decoder(tuple[str, ...])


def own_address(workload: Workload, wanted: str = "") -> str:
    """Return where a workload is probed; empty if it has no address.

    That is the address of its probe, if that is its own, or its first address. A service of this
    host is probed where no way through the mesh is needed; the loopback interface of other
    workloads is not reachable.
    """
    if workload.host:
        return "127.0.0.1" if wanted in {"", *_LOOPBACK, *workload.addresses} else ""
    first = next(iter(workload.addresses), "")
    if wanted in {"", *_LOOPBACK}:
        return first
    return wanted if wanted in workload.addresses else ""
