"""What the rules do to real packets, both writers and both families."""

from __future__ import annotations

import contextlib
import functools
import select
import socket
from typing import Any

import pytest

from meshd.capture.pods import excess
from meshd.capture.rules.options import CaptureOptions, parse_network
from meshd.model.interception import (
    CAPTURE_PROBE_ADDRESS,
    CAPTURE_PROBE_ADDRESS_V6,
    DNS_PORT,
    INBOUND_PORT,
    OUTBOUND_PORT,
    PROXY_INBOUND_MARK,
    PROXY_MARK,
)
from tests.waiting import PATIENCE


@pytest.fixture
def captured(network: Any, backend: str) -> Any:
    network.apply(CaptureOptions(backend=backend))
    return network


def test_outbound_connections_arrive_at_the_outbound_listener(
    captured: Any, addresses: dict[str, str]
) -> None:
    with (
        captured.workload.listen(addresses["any"], OUTBOUND_PORT) as proxy,
        captured.workload.connect(addresses["elsewhere"], 8080),
        proxy.accept() as accepted,
    ):
        assert accepted.original == (addresses["elsewhere"], 8080)
        assert accepted.client == addresses["workload"]


def test_packets_of_the_proxy_are_not_redirected(captured: Any, addresses: dict[str, str]) -> None:
    with (
        captured.peer.listen(addresses["elsewhere"], 8080) as server,
        captured.workload.connect(addresses["elsewhere"], 8080, mark=PROXY_MARK),
        server.accept() as accepted,
    ):
        assert accepted.client == addresses["workload"]


def test_inbound_connections_arrive_at_the_inbound_listener(
    captured: Any, addresses: dict[str, str]
) -> None:
    with (
        captured.workload.listen(addresses["any"], INBOUND_PORT) as proxy,
        captured.peer.connect(addresses["workload"], 9080),
        proxy.accept() as accepted,
    ):
        assert accepted.original == (addresses["workload"], 9080)
        assert accepted.client == addresses["peer"]


@pytest.mark.parametrize("port", [15008, 15020, 15021, 22, 53])
def test_no_port_is_past_the_proxy_because_of_its_number(
    captured: Any, addresses: dict[str, str], port: int
) -> None:
    with (
        captured.workload.listen(addresses["any"], INBOUND_PORT) as proxy,
        captured.peer.connect(addresses["workload"], port),
        proxy.accept() as accepted,
    ):
        assert accepted.original == (addresses["workload"], port)


@pytest.mark.parametrize("mark", [PROXY_MARK, 0x53A, 0x111, 0xFFFFFFFF])
def test_a_neighbours_own_marks_lead_it_past_no_proxy(
    captured: Any, addresses: dict[str, str], mark: int
) -> None:
    with (
        captured.workload.listen(addresses["any"], INBOUND_PORT) as proxy,
        captured.peer.connect(addresses["workload"], 9080, mark=mark),
        proxy.accept() as accepted,
    ):
        assert accepted.original == (addresses["workload"], 9080)


def test_replies_to_a_borrowed_source_address_come_back_to_the_proxy(
    captured: Any, addresses: dict[str, str]
) -> None:
    """The very port of the client too, towards the very port of the application."""
    with (
        captured.workload.listen(addresses["any"], INBOUND_PORT) as proxy,
        captured.workload.listen(addresses["workload"], 9080) as application,
        captured.peer.connect(addresses["workload"], 9080) as client,
        proxy.accept() as downstream,
        captured.workload.connect(
            addresses["workload"],
            9080,
            source=addresses["peer"],
            source_port=client.getsockname()[1],
            mark=PROXY_INBOUND_MARK,
        ) as upstream,
        application.accept() as served,
    ):
        assert served.client == addresses["peer"]
        assert served.socket.getsockname()[:2] == (addresses["workload"], 9080)
        client.sendall(b"question")
        upstream.sendall(downstream.socket.recv(64))
        assert served.socket.recv(64) == b"question"
        served.socket.sendall(b"answer")
        downstream.socket.sendall(upstream.recv(64))
        assert client.recv(64) == b"answer"


@pytest.mark.parametrize(
    ("preference", "table"),
    [(None, "200"), (0, "200"), (1, "200"), (100, "200"), (32765, "200"), (None, "100")],
)
def test_source_routing_of_a_host_with_two_addresses_takes_no_reply_away(
    captured: Any, addresses: dict[str, str], preference: int | None, table: str
) -> None:
    """``ip rule add from ADDRESS lookup TABLE``, as multi-homed hosts have it; in a pod, 100 is the
    first table that CNI's plugin for it takes."""
    to = ("default", "via", addresses["peer"], "table", table)
    family = "-6" if ":" in addresses["any"] else "-4"
    rule = ("from", addresses["workload"], "lookup", table)
    if preference is not None:
        rule = (*rule, "pref", str(preference))
    captured.workload.run("ip", family, "route", "add", *to)
    captured.workload.run("ip", family, "rule", "add", *rule)
    try:
        test_replies_to_a_borrowed_source_address_come_back_to_the_proxy(captured, addresses)
    finally:
        captured.workload.run("ip", family, "rule", "del", *rule)
        captured.workload.run("ip", family, "route", "del", *to)


def test_a_workload_that_calls_itself_passes_both_listeners(
    captured: Any, addresses: dict[str, str]
) -> None:
    with (
        captured.workload.listen(addresses["any"], INBOUND_PORT) as proxy,
        captured.workload.listen(addresses["workload"], 9080) as application,
        captured.workload.connect(addresses["workload"], 9080, mark=PROXY_MARK) as outbound,
        proxy.accept() as inbound,
        captured.workload.connect(
            addresses["workload"],
            9080,
            source=addresses["workload"],
            mark=PROXY_INBOUND_MARK,
        ) as upstream,
        application.accept() as served,
    ):
        assert inbound.original == (addresses["workload"], 9080)
        served.socket.sendall(b"answer")
        inbound.socket.sendall(upstream.recv(64))
        assert outbound.recv(64) == b"answer"


def test_loopback_and_own_addresses_are_left_alone(
    captured: Any, addresses: dict[str, str]
) -> None:
    loopback = "::1" if ":" in addresses["any"] else "127.0.0.1"
    with captured.workload.listen(addresses["any"], 9080) as application:
        for address in (loopback, addresses["workload"]):
            with captured.workload.connect(address, 9080), application.accept() as accepted:
                assert accepted.original == (address, 9080)


@pytest.mark.parametrize("port", [OUTBOUND_PORT, INBOUND_PORT])
def test_the_proxys_own_ports_are_no_open_relay(
    captured: Any, addresses: dict[str, str], port: int
) -> None:
    with captured.workload.listen(addresses["any"], port):
        assert not captured.peer.can_connect(addresses["workload"], port)
        assert not captured.workload.can_connect(addresses["workload"], port)


_TAKEN = {
    4: ["169.254.7.127", "169.254.7.126", "127.0.0.6", "169.254.169.254"],
    6: ["fd16:9254:7127:1337:ffff:ffff:ffff:ffff", "fd16:9254:7127:1337:ffff:ffff:ffff:fffe"],
}
"""Addresses that some mesh or some host lets past, and that a neighbour may give to itself."""


def test_no_source_address_is_past_the_proxy(captured: Any, addresses: dict[str, str]) -> None:
    v6 = ":" in addresses["any"]
    for address in _TAKEN[6 if v6 else 4]:
        if address.startswith("127."):
            continue  # a martian: the kernel drops it
        nodad = ["nodad"] if v6 else []
        captured.peer.run("ip", "address", "add", address, "dev", "lo", *nodad)
        captured.workload.run("ip", "route", "add", address, "via", addresses["peer"])
        with (
            captured.workload.listen(addresses["any"], INBOUND_PORT) as proxy,
            captured.peer.connect(addresses["workload"], 9080, source=address),
            proxy.accept() as accepted,
        ):
            assert accepted.client == address


def _ask(host: Any, address: str, mark: int = 0) -> socket.socket:
    client = host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    if mark:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    client.connect((address, 53))
    client.send(b"query")
    return client


def _dns_listener(host: Any, any_address: str) -> socket.socket:
    # Envoy answers from the address that was asked; a plain socket does when it is bound to it.
    return _answerer(host, "::1" if ":" in any_address else "127.0.0.1", DNS_PORT)


def _answerer(host: Any, address: str, port: int) -> socket.socket:
    server = host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, port))
    return server


def test_queries_go_to_the_dns_listener_and_answers_come_from_the_resolver(
    captured: Any, addresses: dict[str, str]
) -> None:
    with (
        _dns_listener(captured.workload, addresses["any"]) as proxy,
        _ask(captured.workload, addresses["elsewhere"]) as client,
    ):
        query, sender = proxy.recvfrom(64)
        proxy.sendto(query + b" answered", sender)
        # A connected socket takes datagrams from the address it asked only.
        assert client.recv(64) == b"query answered"


@pytest.mark.parametrize("rate", [10, 303])
def test_lookups_above_a_workloads_share_are_refused_at_once(
    network: Any, backend: str, addresses: dict[str, str], rate: int
) -> None:
    options = CaptureOptions(backend=backend, dns_rate=rate)
    network.apply(options)
    assert not network.apply(options).steps, "what is in the kernel is what was written"
    with _dns_listener(network.workload, addresses["any"]) as proxy, contextlib.ExitStack() as all_:
        asking = [
            all_.enter_context(_ask(network.workload, addresses["elsewhere"])) for _ in range(2000)
        ]
        arrived, refused = _arrived(proxy), sum(map(_is_refused, asking))
    allowed = len(asking) - refused
    assert 2 * rate <= allowed < len(asking)
    assert arrived >= min(allowed, 200)  # as many as a socket holds that nobody reads


def test_a_socket_that_asks_without_end_gets_no_more(
    network: Any, backend: str, addresses: dict[str, str]
) -> None:
    network.apply(CaptureOptions(backend=backend, dns_rate=10))
    with (
        _dns_listener(network.workload, addresses["any"]) as proxy,
        _ask(network.workload, addresses["elsewhere"]) as client,
    ):
        query, sender = proxy.recvfrom(64)
        proxy.sendto(query, sender)
        assert client.recv(64) == query
        for _ in range(1000):
            with contextlib.suppress(PermissionError):  # what the kernel drops it tells of
                client.send(b"query")
        assert 20 <= _arrived(proxy) < 500


@pytest.mark.parametrize(
    ("rate", "redirected", "twice"), [(5, OUTBOUND_PORT, 1), (5, INBOUND_PORT, 2)]
)
def test_new_connections_above_a_workloads_share_wait(
    network: Any,
    backend: str,
    addresses: dict[str, str],
    rate: int,
    redirected: int,
    twice: int,
) -> None:
    options = CaptureOptions(backend=backend, connection_rate=rate)
    network.apply(options)
    assert not network.apply(options).steps, "what is in the kernel is what was written"
    outbound = redirected == OUTBOUND_PORT
    client = network.workload if outbound else network.peer
    server = addresses["elsewhere" if outbound else "workload"]
    with (
        network.workload.listen(addresses["any"], redirected) as proxy,
        contextlib.ExitStack() as opened,
    ):
        proxy.socket.listen(1000)
        begun = [opened.enter_context(_begin(client, server, 8080)) for _ in range(100)]
        assert 2 * twice * rate <= sum(map(_is_connected, begun)) < len(begun) / 2
        if outbound:
            probe = CAPTURE_PROBE_ADDRESS_V6 if ":" in server else CAPTURE_PROBE_ADDRESS
            with network.workload.connect(probe, 80):
                pass  # at once: it has a share of its own


def _begin(client: Any, address: str, port: int) -> socket.socket:
    connection = client.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    connection.setblocking(False)
    connection.connect_ex((address, port))
    return connection


def _is_connected(connection: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        return bool(connection.getpeername())
    return False


def _arrived(server: socket.socket) -> int:
    server.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while server.recv(64):
            count += 1
    return count


def _is_refused(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        client.recv(64)
    except ConnectionRefusedError:
        return True
    except BlockingIOError:
        return False
    return False


def test_the_proxys_own_queries_reach_the_resolver(
    captured: Any, addresses: dict[str, str]
) -> None:
    with (
        _answerer(captured.peer, addresses["elsewhere"], 53) as resolver,
        _ask(captured.workload, addresses["elsewhere"], PROXY_MARK) as client,
    ):
        query, sender = resolver.recvfrom(64)
        resolver.sendto(query + b" answered", sender)
        assert client.recv(64) == b"query answered"


def test_the_hosts_stub_resolver_address_is_captured_too(captured: Any) -> None:
    with (
        _dns_listener(captured.workload, "0.0.0.0") as proxy,
        _ask(captured.workload, "127.0.0.53") as client,
    ):
        query, sender = proxy.recvfrom(64)
        proxy.sendto(query, sender)
        assert client.recv(64) == b"query"


def test_without_dns_capture_queries_are_left_alone(
    network: Any, backend: str, addresses: dict[str, str]
) -> None:
    network.apply(CaptureOptions(backend=backend, dns=False))
    with (
        _answerer(network.peer, addresses["elsewhere"], 53) as resolver,
        _ask(network.workload, addresses["elsewhere"]),
    ):
        assert resolver.recv(64) == b"query"


@pytest.mark.parametrize(
    ("options", "passing", "captured_port"),
    [
        ({"exclude_outbound_ports": (5432,)}, 5432, 5433),
        ({"include_outbound": (), "include_outbound_ports": (5433,)}, 5432, 5433),
    ],
    ids=["excluded port", "included port"],
)
def test_outbound_ports_can_be_chosen(
    network: Any,
    backend: str,
    addresses: dict[str, str],
    options: dict[str, Any],
    passing: int,
    captured_port: int,
) -> None:
    network.apply(CaptureOptions(backend=backend, **options))
    assert _reaches_peer(network, addresses, passing)
    assert not _reaches_peer(network, addresses, captured_port)


@pytest.mark.parametrize("chosen", ["exclude_outbound", "include_outbound", "exclude_interfaces"])
def test_outbound_addresses_and_interfaces_can_be_chosen(
    network: Any, backend: str, addresses: dict[str, str], chosen: str
) -> None:
    value: dict[str, Any] = {
        "exclude_outbound": (parse_network(addresses["elsewhere"]),),
        "include_outbound": (parse_network(addresses["workload"]),),
        "exclude_interfaces": ("eth0",),
    }
    network.apply(CaptureOptions(backend=backend, **{chosen: value[chosen]}))
    assert _reaches_peer(network, addresses, 8080)


def _reaches_peer(network: Any, addresses: dict[str, str], port: int) -> bool:
    with (
        network.peer.listen(addresses["elsewhere"], port) as peer,
        network.workload.listen(addresses["any"], OUTBOUND_PORT) as proxy,
        network.workload.connect(addresses["elsewhere"], port),
    ):
        # The connection waits in one of the two queues, as soon as the kernel gets to it.
        readable, _, _ = select.select([peer.socket, proxy.socket], [], [], PATIENCE)
        (taken,) = readable
        return taken is peer.socket


def test_inbound_ports_can_be_excluded(
    network: Any, backend: str, addresses: dict[str, str]
) -> None:
    network.apply(CaptureOptions(backend=backend, exclude_inbound_ports=(8443,)))
    with (
        network.workload.listen(addresses["any"], 8443) as gateway,
        network.peer.connect(addresses["workload"], 8443),
        gateway.accept() as accepted,
    ):
        assert accepted.original == (addresses["workload"], 8443)


def test_only_included_inbound_ports_are_captured(
    network: Any, backend: str, addresses: dict[str, str]
) -> None:
    network.apply(CaptureOptions(backend=backend, include_inbound_ports=(9080,)))
    with (
        network.workload.listen(addresses["any"], 9443) as application,
        network.workload.listen(addresses["any"], INBOUND_PORT) as proxy,
        network.peer.connect(addresses["workload"], 9443),
        application.accept(),
        network.peer.connect(addresses["workload"], 9080),
        proxy.accept() as accepted,
    ):
        assert accepted.original == (addresses["workload"], 9080)


def test_a_routing_rule_that_was_there_before_ours_with_the_first_preference_is_named(
    network: Any, backend: str
) -> None:
    network.workload.run("ip", "rule", "add", "from", "198.18.71.2", "lookup", "200", "pref", "0")
    outcome = network.apply(CaptureOptions(backend=backend))
    assert outcome.foreign == ("ipv4 routing rule 0: from 198.18.71.2 lookup 200",)


def test_ipv6_that_is_not_captured_is_refused_in_both_directions(
    network: Any, backend: str
) -> None:
    network.apply(CaptureOptions(backend=backend, ipv6=False))
    for host, other in ((network.workload, network.peer), (network.peer, network.workload)):
        address = "fd00:198::71:2" if host is network.workload else "fd00:198::71:1"
        with host.listen("::", 8080), pytest.raises(ConnectionRefusedError):
            other.connect(address, 8080)
    with (
        network.workload.listen("0.0.0.0", INBOUND_PORT) as proxy,
        network.peer.connect("198.18.71.2", 8080),
        proxy.accept() as accepted,
    ):
        assert accepted.original == ("198.18.71.2", 8080)


def test_connections_above_the_share_are_counted_also_those_to_the_probes_own_address(
    network: Any, backend: str
) -> None:
    network.apply(CaptureOptions(backend=backend, connection_rate=1))
    count = functools.partial(excess.dropped, OUTBOUND_PORT)
    assert network.inside(count) == 0
    with network.workload.listen("0.0.0.0", OUTBOUND_PORT), contextlib.ExitStack() as opened:
        for _ in range(500):
            client = opened.enter_context(network.workload.socket(socket.AF_INET))
            client.setblocking(False)
            client.connect_ex((CAPTURE_PROBE_ADDRESS, 15022))
    assert network.inside(count) > 0
