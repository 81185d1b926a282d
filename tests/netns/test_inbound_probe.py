"""What the inbound probe shows of real rules, seen from the host to which the workload is wired."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd.capture.pods import excess
from meshd.capture.pods.namespaces import Pins
from meshd.capture.probes import inbound
from meshd.capture.probes.conntrack import Connections, End, Flow
from meshd.capture.probes.inbound import Verdict
from meshd.capture.rules import inside, nfnetlink
from meshd.capture.rules.options import ANNOTATION_PREFIX, CaptureOptions
from meshd.model.interception import INBOUND_PORT
from meshd.model.workload import NamedPort, Observation, Stage
from tests.netns.test_capture_service import UID, place, proxy, serving
from tests.waiting import PATIENCE

PORT = 9080
V4 = {"workload": "198.18.71.2"}
CAPTURED = Verdict()


@pytest.fixture
def served(network: Any) -> Iterator[Any]:
    """An application on its port and a proxy on its own, neither of which accepts anything."""
    network.apply(CaptureOptions(backend="nft"))
    with contextlib.ExitStack() as opened:
        listeners = [
            opened.enter_context(network.workload.listen(address, port)).socket
            for address in ("0.0.0.0", "::")
            for port in (INBOUND_PORT, PORT)
        ]
        yield network
        assert not select.select(listeners, [], [], 0)[0], "somebody had a connection"


def verdict(
    network: Any, address: str, *ports: int, options: CaptureOptions | None = None
) -> Verdict:
    """From the peer's side, as from a host."""

    def look() -> Verdict:
        probing = inbound.probe(
            network.workload.netns, [address], ports, options or CaptureOptions()
        )
        return asyncio.run(probing)

    return asyncio.run(inside.run(network.peer.netns, look))


def nft(network: Any, text: str) -> None:
    run = functools.partial(subprocess.run, ["nft", "-f", "-"], input=text, text=True, check=True)
    network.inside(lambda: run() and None)


def test_a_captured_port_is_proven_and_nobody_has_had_a_connection(
    served: Any, addresses: dict[str, str]
) -> None:
    assert verdict(served, addresses["workload"], PORT) == CAPTURED


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_workload_that_is_sent_more_than_its_share_is_proven_all_the_same(
    network: Any, backend: str
) -> None:
    limited = CaptureOptions(backend=backend, connection_rate=1)
    network.apply(limited)
    assert network.apply(limited).steps == ()
    ports = range(PORT, PORT + 20)
    with network.workload.listen("0.0.0.0", INBOUND_PORT), contextlib.ExitStack() as opened:
        for _ in range(100):
            client = opened.enter_context(network.peer.socket(socket.AF_INET))
            client.setblocking(False)
            client.connect_ex((V4["workload"], PORT))
        assert verdict(network, V4["workload"], *ports, options=limited) == CAPTURED
    assert network.inside(functools.partial(excess.dropped, INBOUND_PORT)) > 0


def test_a_workload_that_declares_and_serves_nothing_is_proven(network: Any) -> None:
    network.apply(CaptureOptions(backend="nft"))
    with network.workload.listen("0.0.0.0", INBOUND_PORT):
        assert verdict(network, V4["workload"]) == CAPTURED


def test_without_rules_each_port_is_past_the_proxy(network: Any, addresses: dict[str, str]) -> None:
    with (
        network.workload.listen(addresses["any"], PORT),
        network.workload.listen(addresses["any"], PORT + 1),
    ):
        problem = verdict(network, addresses["workload"], PORT, PORT + 1).problem
    assert f"{PORT} are taken past the proxy" in problem
    assert f"{PORT + 1} are taken past the proxy" in problem


def test_a_port_on_which_somebody_listens_is_tried_though_nobody_declares_it(served: Any) -> None:
    nft(served, _table("inet", "filter", -301, "notrack"))
    assert f":{PORT} are taken past" in verdict(served, V4["workload"]).problem


def _table(family: str, kind: str, priority: int, what: str, hook: str = "prerouting") -> str:
    return f"""
table {family} theirs {{
    chain base {{
        type {kind} hook {hook} priority {priority};
        tcp dport {PORT} {what}
    }}
}}
"""


_AROUND = {
    "an earlier redirect": ("{ip}", "nat", -110, f"redirect to :{PORT + 1}"),
    "an earlier dnat": ("{ip}", "nat", -110, f"dnat to {{workload}}:{PORT + 1}"),
    "notrack": ("inet", "filter", -301, "notrack"),
    "another port in the packet, before it is tracked": (
        *("inet", "filter", -301),
        f"tcp dport set {PORT + 1}",
    ),
    "another port in the packet": ("inet", "filter", -150, f"tcp dport set {PORT + 1}"),
}


@pytest.mark.parametrize("what", _AROUND)
def test_rules_of_others_that_lead_around_the_proxy_are_seen_while_they_are_there(
    served: Any, addresses: dict[str, str], what: str
) -> None:
    family, kind, priority, rule = _AROUND[what]
    ip = "ip" if "." in addresses["any"] else "ip6"
    target = addresses["workload"] if ip == "ip" else f"[{addresses['workload']}]"
    words = (family.format(ip=ip), kind, priority, rule.format(workload=target))
    nft(served, _table(*words))
    options = CaptureOptions(exclude_inbound_ports=(PORT + 1,))
    served.apply(CaptureOptions(backend="nft", exclude_inbound_ports=(PORT + 1,)))
    with served.workload.listen(addresses["any"], PORT + 1):
        found = verdict(served, addresses["workload"], PORT, options=options)
    assert "taken past the proxy" in found.problem
    nft(served, f"delete table {words[0]} theirs")
    assert verdict(served, addresses["workload"], PORT, options=options) == CAPTURED


def add_device(network: Any) -> None:
    """From which packets may come whose senders are elsewhere."""
    run = network.workload.run
    run("ip", "link", "add", "theirs", "type", "veth", "peer", "name", "theirs2")
    run("ip", "link", "set", "theirs", "up")
    run("ip", "link", "set", "theirs2", "up")
    for name in ("all", "theirs"):
        run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")


def lead_around(network: Any) -> None:
    run = network.workload.run
    run("tc", "qdisc", "add", "dev", "eth0", "handle", "ffff:", "ingress")
    at_eth0 = ("tc", "filter", "add", "dev", "eth0", "parent", "ffff:", "protocol", "ip")
    lead = ("action", "mirred", "ingress", "redirect", "dev", "theirs")
    run(*at_eth0, "u32", "match", "u8", "6", "0xff", "at", "9", *lead)


def test_a_device_that_hands_packets_on_before_all_rules_is_seen(served: Any) -> None:
    """With tc, as a program of BPF would: they come in where nothing is to be captured."""
    options = CaptureOptions(backend="nft", exclude_interfaces=("theirs",))
    served.apply(options)
    add_device(served)
    lead_around(served)
    found = verdict(served, V4["workload"], PORT, options=options)
    assert "past the proxy" in found.problem
    served.workload.run("tc", "qdisc", "del", "dev", "eth0", "ingress")
    assert verdict(served, V4["workload"], PORT, options=options) == CAPTURED


def test_a_dropped_probe_is_neither_proven_nor_past_the_proxy(served: Any) -> None:
    nft(served, _table("inet", "filter", 0, "drop", hook="input"))
    nft(served, f"add rule inet theirs base tcp dport {INBOUND_PORT} drop")
    found = verdict(served, V4["workload"], PORT)
    assert (found.problem, "does not answer" in found.unseen) == ("", True)


def test_a_rule_that_refuses_is_no_way_around(served: Any) -> None:
    nft(served, _table("inet", "filter", 0, "reject with tcp reset", hook="input"))
    nft(served, f"add rule inet theirs base tcp dport {INBOUND_PORT} reject with tcp reset")
    assert verdict(served, V4["workload"], PORT).problem == ""


def test_a_refused_probe_proves_nothing(network: Any) -> None:
    network.apply(CaptureOptions(backend="nft"))
    found = verdict(network, V4["workload"], PORT)
    assert (found.problem, "no proxy listens" in found.unseen) == ("", True)


def test_nothing_is_sent_to_somebody_else_who_has_the_same_address(served: Any) -> None:
    """From the test's own namespace no wire leads there."""
    found = asyncio.run(
        inbound.probe(served.workload.netns, [V4["workload"]], [PORT], CaptureOptions())
    )
    assert (found.problem, bool(found.unseen)) == ("", True)
    other = f"mcap{os.getpid()}o"
    subprocess.run(["ip", "netns", "add", other], check=True)
    try:
        namespace = served.workload.netns.with_name(other)

        def look() -> Verdict:
            address = V4["workload"]
            return asyncio.run(inbound.probe(namespace, [address], [PORT], CaptureOptions()))

        elsewhere = asyncio.run(inside.run(served.peer.netns, look))
    finally:
        subprocess.run(["ip", "netns", "delete", other], check=True)
    assert "is somewhere else" in elsewhere.unseen


def test_ipv6_that_is_not_captured_is_proven_to_be_refused(network: Any) -> None:
    options = CaptureOptions(backend="nft", ipv6=False)
    network.apply(options)
    with network.workload.listen("::", PORT), network.workload.listen("::", INBOUND_PORT):
        assert verdict(network, "fd00:198::71:2", PORT, options=options) == CAPTURED


def test_a_workload_is_proven_only_while_what_it_is_sent_reaches_the_proxy(
    network: Any, tmp_path: Path
) -> None:
    """A device that hands packets on is no rule, so nothing but the probe tells of it."""
    add_device(network)
    around = functools.partial(lead_around, network)
    not_there = {f"{ANNOTATION_PREFIX}excludeInterfaces": "theirs"}
    placed = place(network.workload, ports=(NamedPort("http", PORT),), annotations=not_there)

    def is_proven(seen: tuple[Observation, ...]) -> bool:
        return any(one.proven and not one.unseen for one in seen)

    async def story() -> None:
        listen = network.workload.listen
        with listen("0.0.0.0", INBOUND_PORT), listen("::", INBOUND_PORT), listen("0.0.0.0", PORT):
            async with serving(tmp_path / "netns") as connect, proxy(network.workload):
                mesh = await connect()
                await mesh.place(placed)
                await mesh.sees(is_proven)
                around()
                await mesh.sees_problem("past the proxy", Stage.CAPTURED)
                network.workload.run("tc", "qdisc", "del", "dev", "eth0", "ingress")
                await mesh.sees(is_proven)
                await mesh.place()
                await mesh.sees_exactly()

    try:
        in_peer = functools.partial(inside.run, network.peer.netns, timeout=2 * PATIENCE)
        asyncio.run(in_peer(lambda: asyncio.run(story())))
    finally:
        Pins(tmp_path / "netns").unpin(UID)


def test_a_rule_that_rejects_with_icmp_hides_no_problem(network: Any) -> None:
    """The messages come back as errors of the socket that sends, and between what is sent."""
    with network.workload.listen("0.0.0.0", PORT + 1):
        nft(network, _table("inet", "filter", 0, "reject", hook="input"))
        nft(network, "add rule inet theirs base tcp dport 16000-16099 reject")
        found = verdict(network, V4["workload"], PORT, PORT + 1, *range(16000, 16020))
    assert f"{PORT + 1} are taken past the proxy" in found.problem
    assert f"does not answer on {PORT}, " in found.unseen


def test_the_kernel_hands_out_only_connections_like_the_one_asked_for(network: Any) -> None:
    network.apply(CaptureOptions(backend="nft"))

    def story() -> None:
        handed_out: list[object] = []
        ask = nfnetlink.ask_conntrack

        def counted(*asked: Any, **how: Any) -> Iterator[tuple[int, bytes]]:
            for answer in ask(*asked, **how):
                handed_out.append(answer)
                yield answer

        nfnetlink.ask_conntrack = counted
        with contextlib.ExitStack() as opened:
            listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            ends = [
                opened.enter_context(socket.create_connection(listener.getsockname()))
                for _ in range(20)
            ]
            connections = opened.enter_context(contextlib.closing(Connections()))
            source, destination = (
                End("127.0.0.9", ends[7].getsockname()[1]),
                End(*ends[7].getpeername()),
            )
            assert connections.answerers_from(Flow(source, destination)) == []
        assert len(handed_out) == 1

    network.inside(story)


def test_an_interface_with_the_same_hardware_address_is_not_taken_for_the_one_reached(
    network: Any,
) -> None:
    def twin() -> None:
        (link,) = json.loads(_ip("-json", "link", "show", "dev", "eth0"))
        _ip("link", "add", "twin", "address", link["address"], "type", "veth")

    network.inside(twin)
    excluding = CaptureOptions(exclude_interfaces=("twin",))
    found = verdict(network, V4["workload"], PORT, options=excluding)
    assert "refuses connections" in found.unseen


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
