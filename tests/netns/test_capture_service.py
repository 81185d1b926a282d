"""The capture role as the mesh role sees it: placements in, observations out, over its socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd import wire
from meshd.api.base import Duration
from meshd.capture.pods.namespaces import Pins
from meshd.capture.rules import fingerprint, inside
from meshd.capture.session import CaptureService
from meshd.model.interception import CAPTURE_PROBE_ADDRESS, OUTBOUND_PORT
from meshd.model.workload import (
    DroppedConnections,
    Interruptions,
    Observation,
    Placement,
    Stage,
    Workload,
)
from meshd.settings import CaptureSettings
from meshd.wire import channel
from tests.waiting import PATIENCE, eventually

UID = "default.reviews"
SETTINGS = CaptureSettings(probe_interval=Duration(0.1))
PROVEN = Observation(UID, Stage.CAPTURED, proven=True)
WORKLOAD, PEER = "198.18.71.2", "198.18.71.1"
WORKLOAD6, PEER6 = "fd00:198::71:2", "fd00:198::71:1"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "netns"
    pins = Pins(tmp_path / "netns")
    for uid in pins.list_pins():
        pins.unpin(uid)


class Mesh:
    """The mesh role's end of the connection."""

    def __init__(self, connection: channel.Connection[wire.AnyMessage]) -> None:
        self._connection = connection
        self.seen: list[tuple[Observation, ...]] = []

    async def place(self, *placements: Placement) -> None:
        await self._connection.send(wire.Place(placements))

    async def sees(self, check: Callable[[tuple[Observation, ...]], bool]) -> None:
        """The next report for which ``check`` holds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                message = await self._connection.receive()
                assert isinstance(message, wire.Observed)
                self.seen.append(message.observations)
                if check(message.observations):
                    return

    async def sees_exactly(self, *observations: Observation) -> None:
        """But for the paths of the pins, which nobody can foretell, and for the addresses."""
        await self.sees(
            lambda seen: sorted(map(_unpinned, seen), key=_uid) == sorted(observations, key=_uid)
        )

    async def sees_problem(self, words: str, stage: Stage, uid: str = UID) -> None:
        def is_it(observation: Observation) -> bool:
            return (
                observation.uid == uid
                and observation.stage is stage
                and not observation.proven
                and words in observation.problem
            )

        await self.sees(lambda seen: any(map(is_it, seen)))


def _unpinned(observation: Observation) -> Observation:
    return msgspec.structs.replace(
        observation,
        pinned="",
        addresses=(),
        interruptions=Interruptions(),
        dropped=DroppedConnections(),
        unseen="",
        slower="",
    )


def _uid(observation: Observation) -> str:
    return observation.uid


@contextlib.asynccontextmanager
async def serving(
    directory: Path, settings: CaptureSettings = SETTINGS
) -> AsyncGenerator[Callable[[], Awaitable[Mesh]]]:
    service = CaptureService(settings, Pins(directory))
    path = directory.parent / "capture.sock"
    server = await channel.listen(path, wire.CAPTURE, service.session, uids={os.getuid()})
    opened: list[channel.Connection[wire.AnyMessage]] = []

    async def connect() -> Mesh:
        opened.append(await channel.connect(path))
        return Mesh(opened[-1])

    try:
        yield connect
    finally:
        for connection in opened:
            await connection.close()
        server.close()
        await service.close()


@contextlib.asynccontextmanager
async def proxy(host: Any, line: str = f"meshd {UID}\n") -> AsyncGenerator[None]:
    """Answers as the outbound listener does."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line.encode())
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    servers = [
        await asyncio.start_server(answer, sock=host.listen(address, OUTBOUND_PORT).socket)
        for address in ("0.0.0.0", "::")
    ]
    try:
        yield
    finally:
        for server in servers:
            server.close()


def place(host: Any, stage: Stage = Stage.CAPTURED, uid: str = UID, **values: Any) -> Placement:
    netns = values.pop("netns", str(host.netns))
    workload = Workload(uid=uid, name="reviews", namespace="default", netns=netns, **values)
    return Placement(workload, stage)


def test_a_captured_workload_is_proven(network: Any, directory: Path) -> None:
    async def story() -> None:
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)

    asyncio.run(story())


def test_the_addresses_of_a_namespace_are_followed(network: Any, directory: Path) -> None:
    def change(*words: str) -> None:
        network.workload.run("ip", *words)

    async def story() -> None:
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload, Stage.PINNED))
            await mesh.sees(has(WORKLOAD, WORKLOAD6))
            change("address", "add", "198.18.71.77/24", "dev", "eth0")
            change("route", "replace", "default", "via", PEER, "src", "198.18.71.77")
            await mesh.sees(has("198.18.71.77", WORKLOAD6))
            change("-6", "address", "del", f"{WORKLOAD6}/112", "dev", "eth0")
            await mesh.sees(has("198.18.71.77"))
            change("-6", "address", "add", "fd00:198::71:78/112", "dev", "eth0")
            change("-6", "route", "replace", "default", "via", PEER6)
            await mesh.sees(has("198.18.71.77", "fd00:198::71:78"))
            change("route", "del", "default")
            change("-6", "route", "del", "default")
            # No route says which; the first counts.
            await mesh.sees(has(WORKLOAD, "fd00:198::71:78"))

    def has(*addresses: str) -> Callable[[tuple[Observation, ...]], bool]:
        return lambda seen: [one.addresses for one in seen] == [addresses]

    asyncio.run(story())


def test_a_pinned_workload_has_no_rules_until_it_is_captured_and_none_after(
    network: Any, directory: Path
) -> None:
    async def story() -> None:
        before = network.workload.save()
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload, Stage.PINNED))
            await mesh.sees_exactly(Observation(UID, Stage.PINNED))
            pinned = Path(mesh.seen[-1][0].pinned)
            assert pinned.parent == directory
            assert pinned.stat().st_ino == network.workload.netns.stat().st_ino
            assert network.workload.save() == before
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            await mesh.place(place(network.workload, Stage.PINNED))
            await mesh.sees_exactly(Observation(UID, Stage.PINNED))
            assert network.workload.save() == before
            await mesh.place()
            await mesh.sees_exactly()
            assert list(directory.iterdir()) == []

    asyncio.run(story())


def test_a_workload_that_is_not_wanted_any_more_is_let_go_whole(
    network: Any, directory: Path
) -> None:
    async def story() -> None:
        before = network.workload.save()
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            await mesh.place()
            await mesh.sees_exactly()
        assert network.workload.save() == before
        assert list(directory.iterdir()) == []

    asyncio.run(story())


def test_a_workload_whose_proxy_does_not_listen_is_not_proven_until_it_does(
    network: Any, directory: Path
) -> None:
    async def story() -> None:
        async with serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_problem("no proxy listens in the namespace", Stage.CAPTURED)
            async with proxy(network.workload):
                await mesh.sees_exactly(PROVEN)
            await mesh.sees_problem("no proxy listens in the namespace", Stage.CAPTURED)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            "meshd default.ratings\n",
            "the proxy takes this namespace for workload 'default.ratings'",
        ),
        ("SSH-2.0-OpenSSH\n", "something else than the proxy answered ('SSH-2.0-OpenSSH')"),
        ("", "the proxy closed the connection without an answer"),
    ],
    ids=["another workload", "another program", "nothing"],
)
def test_any_other_answer_than_the_proxys_own_is_a_problem(
    network: Any, directory: Path, line: str, problem: str
) -> None:
    async def story() -> None:
        async with proxy(network.workload, line), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_problem(problem, Stage.CAPTURED)

    asyncio.run(story())


def test_a_namespace_without_a_default_route_is_told_what_it_lacks_and_that_is_enough(
    network: Any, directory: Path
) -> None:
    async def story() -> None:
        network.workload.run("ip", "route", "del", "default")
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            route = f"route add {CAPTURE_PROBE_ADDRESS} dev"
            await mesh.sees_problem(f"or: ip {route} INTERFACE", Stage.CAPTURED)
            network.workload.run("ip", *route.split(), "eth0")
            await mesh.sees_exactly(PROVEN)

    asyncio.run(story())


def test_an_ipv6_address_from_which_nothing_leads_out_is_not_asked_about(
    network: Any, directory: Path
) -> None:
    async def story() -> None:
        network.workload.run("ip", "-6", "route", "del", "default")
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)

    asyncio.run(story())


@pytest.mark.parametrize("command", ["iptables-nft -t nat -F", "ip6tables-nft -t mangle -F"])
def test_rules_that_somebody_removes_are_noticed_and_put_back(
    network: Any, directory: Path, command: str
) -> None:
    async def story() -> None:
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            written = network.workload.save()
            network.workload.run(*command.split())
            await mesh.sees_problem("changed its rules", Stage.CAPTURED)
            await mesh.sees_exactly(PROVEN)
            assert network.workload.save() == written

    asyncio.run(story())


def test_rules_of_others_are_none_of_our_business(network: Any, directory: Path) -> None:
    async def story() -> None:
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            network.workload.run("iptables-nft", "-A", "INPUT", "-p", "sctp", "-j", "DROP")
            # Pinned and captured again: by then the change has been looked at.
            await mesh.place(place(network.workload, labels={"version": "v2"}))
            await mesh.place(place(network.workload, Stage.PINNED))
            await mesh.sees_exactly(Observation(UID, Stage.PINNED))
        assert not any("changed" in one.problem for report in mesh.seen for one in report)

    asyncio.run(story())


def test_when_the_mesh_hangs_up_everything_stays(network: Any, directory: Path) -> None:
    async def story() -> None:
        async with proxy(network.workload), serving(directory) as connect:
            first = await connect()
            await first.place(place(network.workload))
            await first.sees_exactly(PROVEN)
            written = network.workload.save()
            await first._connection.close()  # pyright: ignore[reportPrivateUsage]
            second = await connect()
            await second.sees_exactly(PROVEN)
            await second.place(place(network.workload))
            assert network.workload.save() == written

    asyncio.run(story())


def test_a_new_process_takes_over_what_the_last_one_left(network: Any, directory: Path) -> None:
    async def story() -> None:
        peer_before = network.peer.save()
        both = (place(network.workload), place(network.peer, uid="default.ratings"))
        async with proxy(network.workload):
            async with (
                proxy(network.peer, "meshd default.ratings\n"),
                serving(directory) as connect,
            ):
                mesh = await connect()
                await mesh.place(*both)
                await mesh.sees(lambda seen: sum(one.proven for one in seen) == 1)
            written = network.workload.save()
            async with serving(directory) as connect:
                mesh = await connect()
                await mesh.place(both[0])
                await mesh.sees_exactly(PROVEN)
                assert not directory.joinpath("default.ratings").exists()
                # The first report is the whole truth, never "nothing is captured yet".
                assert all(one.stage is Stage.CAPTURED for one in mesh.seen[0] if one.uid == UID)
                assert network.workload.save() == written
                assert network.peer.save() == peer_before

    asyncio.run(story())


def test_a_workload_that_cannot_be_captured_does_not_hinder_the_others(
    network: Any, directory: Path
) -> None:
    async def story() -> None:
        annotations = {"traffic.sidecar.istio.io/excludeOutboundPorts": "http"}
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(
                place(network.workload, uid="a.gone", netns="/run/netns/nowhere"),
                place(network.peer, uid="a.wrong", annotations=annotations),
                place(network.workload),
            )
            await mesh.sees(lambda seen: PROVEN in map(_unpinned, seen) and len(seen) == 3)
            problems = {one.uid: (one.stage, one.problem) for one in mesh.seen[-1]}
            assert problems["a.gone"] == (
                Stage.ABSENT,
                "network namespace /run/netns/nowhere not found: No such file or directory",
            )
            assert problems["a.wrong"] == (
                Stage.PINNED,
                "workload a/wrong: annotation traffic.sidecar.istio.io/excludeOutboundPorts:"
                " \"http\": 'http' is not a port (1 to 65535)",
            )

    asyncio.run(story())


def test_other_messages_are_refused(directory: Path) -> None:
    async def story() -> None:
        async with serving(directory):
            answer = await channel.call(directory.parent / "capture.sock", wire.Status())
            assert isinstance(answer, wire.Failed)
            assert "Invalid value 'Status'" in answer.reason

    asyncio.run(story())


def test_changed_options_are_applied_while_it_is_captured(network: Any, directory: Path) -> None:
    async def story() -> None:
        annotations = {"traffic.sidecar.istio.io/excludeOutboundPorts": "5432"}
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            await mesh.place(place(network.workload, annotations=annotations))
            deadline = time.monotonic() + PATIENCE
            while "--dport 5432" not in network.workload.save():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    asyncio.run(story())


def test_ipv6_is_probed_where_the_namespace_has_an_address(network: Any, directory: Path) -> None:
    async def story() -> None:
        server = network.workload.listen("0.0.0.0", OUTBOUND_PORT).socket
        assert server.family == socket.AF_INET

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"meshd {UID}\n".encode())
            writer.close()

        async with await asyncio.start_server(answer, sock=server), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_problem("ipv6 probe: redirected, but no proxy listens", Stage.CAPTURED)
            network.workload.run("ip", "-6", "address", "flush", "dev", "eth0", "scope", "global")
            await mesh.sees_exactly(PROVEN)

    asyncio.run(story())


SELDOM = msgspec.structs.replace(SETTINGS, probe_interval=Duration(3600), backend="nft")
"""Nothing is noticed by a probe."""
_DISTURBANCES = (
    ("nft", "flush", "ruleset"),
    ("iptables-nft", "-t", "nat", "-F", "OUTPUT"),
    ("iptables-nft", "-t", "nat", "-I", "OUTPUT", "1", "-p", "tcp", "-j", "ACCEPT"),
    ("iptables-nft", "-t", "nat", "-I", "PREROUTING", "1", "-p", "tcp", "-j", "ACCEPT"),
    ("iptables-nft", "-t", "raw", "-I", "PREROUTING", "1", "-p", "tcp", "-j", "CT", "--notrack"),
    ("iptables-nft", "-t", "raw", "-I", "OUTPUT", "1", "-p", "tcp", "-j", "CT", "--notrack"),
    ("iptables-nft", "-t", "mangle", "-I", "OUTPUT", "1", "-j", "ACCEPT"),
    ("ip6tables-nft", "-t", "nat", "-I", "OUTPUT", "1", "-p", "tcp", "-j", "ACCEPT"),
    ("ip", "rule", "del", "fwmark", "0x111/0xfff"),
)


def first_rules(host: Any) -> dict[tuple[str, str, str], str]:
    """By program, table and chain."""
    found: dict[tuple[str, str, str], str] = {}
    for program in ("iptables-nft-save", "ip6tables-nft-save"):
        table = ""
        for line in host.run(program).splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith("-A "):
                found.setdefault((program, table, line.split(" ")[1]), line)
    return found


def is_whole(host: Any) -> bool:
    """Whether our jumps are first in each chain that has them, and so is the rule to our route."""
    first = first_rules(host)
    tables = ("nat", "raw", "mangle")
    chains = [(table, builtin) for table in tables for builtin in ("OUTPUT", "PREROUTING")]
    return "0:\tfrom all fwmark 0x111" in host.run("ip", "rule") and all(
        "-j MESHD_" in first.get((program, *chain), "")
        for program in ("iptables-nft-save", "ip6tables-nft-save")
        for chain in chains
    )


@pytest.mark.parametrize("disturbance", _DISTURBANCES, ids=" ".join)
def test_what_takes_a_workload_out_of_the_mesh_is_undone_long_before_the_next_probe(
    network: Any, directory: Path, disturbance: tuple[str, ...]
) -> None:
    async def story() -> None:
        async with proxy(network.workload), serving(directory, SELDOM) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload, addresses=("198.18.0.2", "fd00:198::2")))
            await mesh.sees_exactly(PROVEN)
            assert is_whole(network.workload)
            network.workload.run(*disturbance)
            program = "somebody else" if disturbance[0] == "ip" else f"{disturbance[0]} (process "
            await mesh.sees_problem(program, Stage.CAPTURED)
            assert "changed its rules" in mesh.seen[-1][0].problem
            await mesh.sees_exactly(PROVEN)
            assert is_whole(network.workload)
            told = mesh.seen[-1][0].interruptions
            assert told.counts == {"" if disturbance[0] == "ip" else disturbance[0]: 1}
            assert program in told.last
            assert told.last.endswith(f"they were restored after {told.seconds:.2f} s")

    asyncio.run(story())


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_workload_that_opens_more_connections_than_it_may_is_said_to_be_limited(
    network: Any, directory: Path, backend: str
) -> None:
    settings = msgspec.structs.replace(SELDOM, backend=backend, connections_per_second=5)

    async def story() -> None:
        async with proxy(network.workload), serving(directory, settings) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            with contextlib.ExitStack() as opened:
                for _ in range(40):
                    one = opened.enter_context(network.workload.socket(socket.AF_INET))
                    one.setblocking(False)
                    one.connect_ex(("198.19.71.9", 80))
                await mesh.sees(lambda seen: seen[0].dropped.opened > 0)
            told = mesh.seen[-1][0]
            assert "it opens more than 5 new connections a second" in told.dropped.limited
            assert told.proven, "a limited workload is no less in the mesh"
            assert told.dropped.received == 0

    asyncio.run(story())


_BEFORE_OURS = (
    (
        "nft add table inet theirs; add chain inet theirs early"
        " { type filter hook prerouting priority -301; };"
        " add rule inet theirs early tcp dport 8080 notrack",
        "table inet theirs, chain early (prerouting, priority -301): tcp dport 8080 notrack",
        "nft delete table inet theirs",
    ),
    (
        "iptables-nft -t mangle -A OUTPUT -p tcp --dport 99 -j MARK --set-mark 0x539",
        "ipv4 nft table mangle: -A OUTPUT -p tcp -m tcp --dport 99 -j MARK --set-xmark 0x539",
        "iptables-nft -t mangle -D OUTPUT -p tcp --dport 99 -j MARK --set-mark 0x539",
    ),
)


@pytest.mark.parametrize(("command", "rule", "undoing"), _BEFORE_OURS, ids=["nft", "mark"])
def test_a_workload_is_not_proven_while_a_rule_of_others_comes_before_the_meshs(
    network: Any, directory: Path, command: str, rule: str, undoing: str
) -> None:
    async def story() -> None:
        async with proxy(network.workload), serving(directory, SELDOM) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            program, *words = command.split()
            network.workload.run(program, *words)
            await mesh.sees_problem(rule, Stage.CAPTURED)
            assert f"put there by {program} (process " in mesh.seen[-1][0].problem
            network.workload.run(*undoing.split())
            await mesh.sees_exactly(PROVEN)
            told = mesh.seen[-1][0].interruptions
            assert told.counts == {program: 1}
            assert rule in told.last
            assert "they were gone after " in told.last

    asyncio.run(story())


@pytest.mark.parametrize("program", ["iptables-legacy", "ip6tables-legacy"])
def test_a_legacy_rule_that_is_replaced_by_one_of_the_same_size_is_put_back(
    network: Any, directory: Path, program: str
) -> None:
    """What packets count changes all the time, and is no change of the rules."""
    settings = msgspec.structs.replace(SELDOM, backend="legacy")

    async def story() -> None:
        async with proxy(network.workload), serving(directory, settings) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            with inside.entered(network.workload.netns):
                known = fingerprint.take()
            for elsewhere in ("198.19.71.9", "fd00:198:9::9"):
                network.workload.connect(elsewhere, 80).close()
            with inside.entered(network.workload.netns):
                assert fingerprint.take() == known
            network.workload.run(program, "-t", "nat", "-R", "OUTPUT", "1", "-j", "RETURN")
            await mesh.sees_problem("somebody else changed its rules", Stage.CAPTURED)
            await mesh.sees_exactly(PROVEN)
            saved = network.workload.run(f"{program}-save", "-t", "nat")
            assert saved.index("-A OUTPUT -j MESHD_OUTPUT") < saved.index("-A OUTPUT -j RETURN")

    asyncio.run(story())


def test_marks_of_accepted_sockets_that_others_switch_off_are_reported(
    network: Any, directory: Path
) -> None:
    """Replies take the slower way then, so it is no problem, and nobody is fought about it."""

    async def story() -> None:
        async with proxy(network.workload), serving(directory) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            network.workload.run("sysctl", "-qw", "net.ipv4.tcp_fwmark_accept=0")
            await mesh.sees(lambda seen: "somebody has set" in seen[0].slower)
            assert mesh.seen[-1][0].proven
            network.workload.run("sysctl", "-qw", "net.ipv4.tcp_fwmark_accept=1")
            await mesh.sees(lambda seen: seen[0].slower == "")

    asyncio.run(story())


def test_rules_of_others_that_use_marks_end_the_marking_of_replies_at_once(
    network: Any, directory: Path
) -> None:
    """That leads nothing around the mesh, so it counts as no interruption."""
    theirs = ("ip", "rule", "add", "fwmark", "1", "lookup", "200")

    async def story() -> None:
        async with proxy(network.workload), serving(directory, SELDOM) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            network.workload.run(*theirs)
            await mesh.sees(lambda seen: "rule fwmark 0x1 lookup 200" in seen[0].slower)
            assert "0x53a" not in network.workload.run("ip", "rule")
            assert mesh.seen[-1][0].proven
            network.workload.run(*(word.replace("add", "del") for word in theirs))
            await mesh.sees(lambda seen: seen[0].slower == "")
            assert "0x53a" in network.workload.run("ip", "rule")
            assert mesh.seen[-1][0].interruptions == Interruptions()

    asyncio.run(story())


def test_the_rule_for_marked_replies_that_others_remove_is_written_again(
    network: Any, directory: Path
) -> None:
    async def story() -> None:
        async with proxy(network.workload), serving(directory, SELDOM) as connect:
            mesh = await connect()
            await mesh.place(place(network.workload))
            await mesh.sees_exactly(PROVEN)
            network.workload.run("ip", "rule", "del", "fwmark", "0x53a/0xfff")
            await asyncio.to_thread(
                eventually,
                lambda: "0x53a" in network.workload.run("ip", "rule"),
                "the rule is there again",
            )

    asyncio.run(story())
