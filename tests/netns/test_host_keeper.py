"""The task that captures a host's services, inside a namespace that stands for the host."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd.api.base import Duration
from meshd.capture.host import cgroups
from meshd.capture.host.keeper import HostKeeper
from meshd.capture.host.rules import HostWorkload
from meshd.capture.rules import apply, inside
from meshd.capture.rules.options import CaptureOptions
from meshd.model.workload import (
    HostService,
    Interruptions,
    NamedPort,
    Observation,
    Placement,
    Stage,
    Workload,
)
from meshd.settings import CaptureSettings
from tests.waiting import PATIENCE

UID = "mesh.web"
SETTINGS = CaptureSettings(probe_interval=Duration(0.2))
TIMEOUT = 3 * PATIENCE


@pytest.fixture
def cgroup() -> Iterator[str]:
    name = f"mhk{os.getpid()}"
    (cgroups.root() / name).mkdir()
    yield name
    for inner in sorted((cgroups.root() / name).glob("**/"), reverse=True):
        inner.rmdir()


class Watched:
    """A keeper, and what it tells."""

    def __init__(
        self,
        note: Path,
        *,
        fail_open: bool = False,
        bypasses: Callable[[Mapping[str, HostService]], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self.seen: dict[str, Observation] = {}
        self.unseen = ""
        self._news = asyncio.Event()
        self.keeper = HostKeeper(
            SETTINGS, note, self._observe, fail_open=fail_open, bypasses=bypasses
        )

    def _observe(self, uid: str, seen: Observation | None) -> None:
        if seen:
            self.seen[uid] = msgspec.structs.replace(seen, unseen="")
            self.unseen = seen.unseen
        else:
            self.seen.pop(uid, None)
        self._news.set()

    async def sees(self, check: Callable[[Observation | None], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not check(self.seen.get(UID)):
                self._news.clear()
                await self._news.wait()


async def becomes(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


def placement(cgroup: str, stage: Stage = Stage.CAPTURED, *ports: int) -> dict[str, Placement]:
    workload = Workload(
        uid=UID,
        name="web",
        namespace="mesh",
        netns="",
        ports=tuple(NamedPort("http", port) for port in ports or (8081,)),
        host=HostService(
            cgroup=cgroup, unit="web.service", outbound_port=15101, inbound_port=15102
        ),
    )
    return {UID: Placement(workload, stage)}


async def proxy() -> asyncio.Server:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"meshd {UID}\n".encode())
        writer.close()

    return await asyncio.start_server(answer, ["127.0.0.1", "::1"], 15101)


async def silent() -> asyncio.Server:
    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    return await asyncio.start_server(wait, "127.0.0.1", 15111)


class Resolver(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


@contextlib.asynccontextmanager
async def answering_queries() -> AsyncGenerator[None]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Resolver, ("127.0.0.1", 15101))
    try:
        yield
    finally:
        transport.close()


def run(network: Any, scenario: Callable[[], Awaitable[None]]) -> None:
    """In a child inside the namespace, for which that is the host's."""

    def action() -> str:
        try:
            asyncio.run(asyncio.wait_for(scenario(), TIMEOUT))  # pyright: ignore[reportArgumentType]
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
        return ""

    problem = asyncio.run(inside.run(network.workload.netns, action, timeout=TIMEOUT + 5))
    assert problem == ""


def test_a_service_is_captured_proven_and_let_go(network: Any, cgroup: str, tmp_path: Path) -> None:
    before = network.workload.save()
    note = tmp_path / "note"

    async def scenario() -> None:
        watched = Watched(note)
        watched.keeper.place({})
        assert not note.exists()
        watched.keeper.place(placement(cgroup, Stage.PINNED))
        await watched.sees(lambda seen: seen == Observation(UID, Stage.PINNED))
        async with await proxy():
            watched.keeper.place(placement(cgroup))
            await watched.sees(lambda seen: seen == Observation(UID, Stage.CAPTURED, proven=True))
        assert note.exists()
        watched.keeper.place({})
        await watched.sees(lambda seen: seen is None)
        assert not note.exists()
        await watched.keeper.close()

    run(network, scenario)
    assert network.workload.save() == before


def test_rules_that_differ_by_our_own_doing_are_nobodys_interruption(
    network: Any, cgroup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a cgroup is replaced at the moment at which a service is in doubt anyway."""

    async def scenario() -> None:
        watched = Watched(tmp_path / "note")
        async with await proxy():
            watched.keeper.place(placement(cgroup))
            await watched.sees(lambda seen: seen is not None and seen.proven)
            present = apply.as_they_are

            def replaced(workloads: Sequence[HostWorkload]) -> tuple[HostWorkload, ...]:
                options = CaptureOptions(connection_rate=77)
                return tuple(
                    dataclasses.replace(one, options=options) for one in present(workloads)
                )

            monkeypatch.setattr(apply, "as_they_are", replaced)
        await watched.sees(lambda seen: seen is not None and "no proxy listens" in seen.problem)
        await becomes(lambda: "77/sec" in network.workload.save())
        async with await proxy():
            await watched.sees(lambda seen: seen is not None and seen.proven)
        assert watched.seen[UID].interruptions == Interruptions()
        await watched.keeper.close()

    run(network, scenario)


def test_a_service_is_proven_on_a_host_whose_ipv6_leads_nowhere(
    network: Any, cgroup: str, tmp_path: Path
) -> None:
    """As of one that has no more of it than the addresses of some bridge."""
    network.workload.run("ip", "-6", "route", "del", "default")

    async def scenario() -> None:
        watched = Watched(tmp_path / "note")
        async with await proxy():
            watched.keeper.place(placement(cgroup))
            await watched.sees(lambda seen: seen is not None and seen.proven)
        await watched.keeper.close()

    run(network, scenario)


def test_a_service_of_which_a_process_has_left_is_not_proven_and_stays_captured(
    network: Any, cgroup: str, tmp_path: Path
) -> None:
    left = {UID: "web.service has processes outside"}
    outside: dict[str, str] = {}

    def bypasses(services: Mapping[str, HostService]) -> Mapping[str, str]:
        assert [service.cgroup for service in services.values()] == [cgroup]
        return outside

    async def scenario() -> None:
        watched = Watched(tmp_path / "note", fail_open=True, bypasses=bypasses)
        async with await proxy(), answering_queries():
            watched.keeper.place(placement(cgroup))
            proven = Observation(UID, Stage.CAPTURED, proven=True)
            await watched.sees(lambda seen: seen == proven)
            outside.update(left)
            unproven = Observation(UID, Stage.CAPTURED, problem=left[UID])
            await watched.sees(lambda seen: seen == unproven)
            outside.clear()
            await watched.sees(lambda seen: seen == proven)
        await watched.keeper.close()

    run(network, scenario)


def test_what_another_process_left_is_taken_away(network: Any, cgroup: str, tmp_path: Path) -> None:
    before = network.workload.save()
    note = tmp_path / "note"

    async def first() -> None:
        watched = Watched(note)
        watched.keeper.place(placement(cgroup))
        await watched.sees(lambda seen: seen is not None and seen.stage is Stage.CAPTURED)
        await watched.keeper.close()

    async def second() -> None:
        watched = Watched(note)
        watched.keeper.place({})
        await becomes(lambda: not note.exists())
        await watched.keeper.close()

    run(network, first)
    assert "MESHD_OUTPUT" in network.workload.save()
    run(network, second)
    assert network.workload.save() == before


def test_rules_that_somebody_flushed_are_put_back(
    network: Any, cgroup: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path / "note")
        async with await proxy():
            watched.keeper.place(placement(cgroup))
            await watched.sees(lambda seen: seen is not None and seen.proven)
            written = network.workload.save()
            network.workload.run("iptables", "-t", "nat", "-F")
            await watched.sees(
                lambda seen: (
                    seen is not None
                    and not seen.proven
                    and "iptables (process " in seen.problem
                    and "they were restored after " in seen.problem
                )
            )
            assert network.workload.save() == written
            await watched.sees(lambda seen: seen is not None and seen.proven)
            assert watched.seen[UID].interruptions.counts == {"iptables": 1}
        await watched.keeper.close()

    run(network, scenario)


def test_a_service_that_is_sent_more_connections_than_it_may_is_said_to_be_limited(
    network: Any, cgroup: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path / "note")
        async with await proxy():
            wanted = placement(cgroup)[UID]
            few = {"meshd.io/connections-per-second": "5"}
            workload = msgspec.structs.replace(wanted.workload, annotations=few)
            watched.keeper.place({UID: Placement(workload, Stage.CAPTURED)})
            await watched.sees(lambda seen: seen is not None and seen.proven)
            with contextlib.ExitStack() as opened:
                for _ in range(40):
                    one = opened.enter_context(network.peer.socket(socket.AF_INET))
                    one.setblocking(False)
                    one.connect_ex(("198.18.71.2", 8081))
                await watched.sees(lambda seen: seen is not None and seen.dropped.received > 0)
            told = watched.seen[UID]
            assert "it is sent more than 10 new connections a second" in told.dropped.limited
            assert told.dropped.opened == 0
        await watched.keeper.close()

    run(network, scenario)


def test_only_one_meshd_captures_the_services_of_a_host(
    network: Any, cgroup: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        first, second = Watched(tmp_path / "a"), Watched(tmp_path / "b")
        async with await proxy():
            first.keeper.place(placement(cgroup))
            await first.sees(lambda seen: seen is not None and seen.proven)
            second.keeper.place(placement(cgroup, Stage.CAPTURED, 9999))
            await second.sees(lambda seen: seen is not None and "another meshd" in seen.problem)
        await first.keeper.close()
        await second.keeper.close()

    run(network, scenario)
    assert "9999" not in network.workload.save()


def test_a_wish_that_makes_no_sense_leaves_a_captured_service_captured(
    network: Any, cgroup: str, tmp_path: Path
) -> None:
    wrong = placement(cgroup)[UID]
    annotations = {"traffic.sidecar.istio.io/excludeOutboundPorts": "many"}
    workload = msgspec.structs.replace(wrong.workload, annotations=annotations)
    wrong = msgspec.structs.replace(wrong, workload=workload)

    async def scenario() -> None:
        watched = Watched(tmp_path / "note")
        async with await proxy():
            watched.keeper.place(placement(cgroup))
            await watched.sees(lambda seen: seen is not None and seen.proven)
            written = network.workload.save()
            watched.keeper.place({UID: wrong})
            await watched.sees(lambda seen: seen is not None and "many" in seen.problem)
            assert network.workload.save() == written
        await watched.keeper.close()

    run(network, scenario)


@pytest.mark.parametrize("fail_open", [True, False])
def test_without_a_proxy_the_policy_decides(
    network: Any, cgroup: str, tmp_path: Path, fail_open: bool
) -> None:
    async def scenario() -> None:
        watched = Watched(tmp_path / "note", fail_open=fail_open)
        watched.keeper.place(placement(cgroup))
        if fail_open:
            await watched.sees(lambda seen: seen is not None and seen.unprotected)
            await becomes(lambda: "MESHD" not in network.workload.save())
            assert "UNPROTECTED" in watched.seen[UID].problem
        else:
            await watched.sees(lambda seen: seen is not None and "no proxy" in seen.problem)
            assert watched.seen[UID].stage is Stage.CAPTURED
        async with await proxy():
            if fail_open:  # then what nobody answers is not proven: its queries pass
                await watched.sees(lambda seen: seen is not None and "its DNS" in seen.problem)
                await becomes(lambda: "--to-ports 15101" in network.workload.save())
                await watched.sees(lambda seen: seen is not None and seen.unprotected)
                await becomes(lambda: "-m udp --dport 53 " not in network.workload.save())
            async with answering_queries():
                await watched.sees(lambda seen: seen is not None and seen.proven)
                await becomes(lambda: "-m udp --dport 53 " in network.workload.save())
        await watched.keeper.close()

    run(network, scenario)


@pytest.fixture
def slow_cgroup() -> Iterator[str]:
    name = f"meshd-test-{os.getpid()}-slow"
    (cgroups.root() / name).mkdir()
    yield name
    for inner in sorted((cgroups.root() / name).glob("**/"), reverse=True):
        inner.rmdir()


def test_a_service_whose_probe_takes_long_keeps_no_other_from_being_told(
    network: Any, cgroup: str, slow_cgroup: str, tmp_path: Path
) -> None:
    slow = "mesh.slow"
    assert slow < UID
    host = HostService(
        cgroup=slow_cgroup, unit="slow.service", outbound_port=15111, inbound_port=15112
    )
    workload = Workload(uid=slow, name="slow", namespace="mesh", netns="", host=host)

    async def scenario() -> None:
        watched = Watched(tmp_path / "note")
        async with await proxy(), answering_queries(), await silent():
            watched.keeper.place({slow: Placement(workload, Stage.CAPTURED), **placement(cgroup)})
            await watched.sees(lambda seen: seen is not None and seen.proven)
            assert slow not in watched.seen
            await becomes(lambda: slow in watched.seen)
            assert "no answer" in watched.seen[slow].problem
        await watched.keeper.close()

    run(network, scenario)


_REDIRECT = """
table inet theirs {
    chain base {
        type filter hook prerouting priority -301;
        iifname "meshd-probe" tcp dport 8081 %s
    }
}
"""


@pytest.mark.parametrize("rule", ["notrack", "tcp dport set 8082"])
def test_a_service_is_proven_only_while_what_it_is_sent_from_outside_reaches_the_proxy(
    network: Any, cgroup: str, tmp_path: Path, rule: str
) -> None:
    def nft(text: str) -> None:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)

    async def scenario() -> None:
        watched = Watched(tmp_path / "note")
        with contextlib.ExitStack() as opened:
            for port in (8081, 8082, 15102):
                for any_address in ("0.0.0.0", "::"):
                    opened.enter_context(listening(any_address, port))
            async with await proxy():
                watched.keeper.place(placement(cgroup))
                await watched.sees(lambda seen: bool(seen and seen.proven and not watched.unseen))
                nft(_REDIRECT % rule)
                await watched.sees(lambda seen: bool(seen and "past the proxy" in seen.problem))
                nft("delete table inet theirs")
                await watched.sees(lambda seen: bool(seen and seen.proven and not watched.unseen))
                assert "meshd-probe" in interfaces()
                watched.keeper.place({})
                await watched.sees(lambda seen: seen is None)
                await becomes(lambda: "meshd-probe" not in interfaces())
            await watched.keeper.close()

    run(network, scenario)


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def listening(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((address, port))
    server.listen()
    return server
