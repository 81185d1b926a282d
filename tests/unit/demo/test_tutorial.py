"""The demo's pure parts: what it counts, what it reads out of packets, what it shows."""

from __future__ import annotations

import ipaddress
import math
import os
import random
import signal
import struct
import subprocess
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.base.errors import InvalidInputError
from meshd.demo.tutorial.counting import likely, status_counts, timed, uniq_counts
from meshd.demo.tutorial.machine import cgroups_of, descendants, rules_of
from meshd.demo.tutorial.node import free_networks
from meshd.demo.tutorial.packets import Direction, streams, tls_records
from meshd.demo.tutorial.terminal import trimmed

CLIENT, SERVER = "198.18.0.10", "198.18.0.11"
THERE = Direction(CLIENT, 40000, SERVER, 9080)
Sent = tuple[int, bytes]
"""A sequence number and what was sent."""


def frame(sequence: int, payload: bytes, *, protocol: int = 6, ethertype: int = 0x0800) -> bytes:
    """From the client to the server, padded as Ethernet pads short frames."""
    tcp = struct.pack(">HHIIBBHHH", 40000, 9080, sequence % 2**32, 0, 5 << 4, 24, 512, 0, 0)
    addresses = ipaddress.IPv4Address(CLIENT).packed + ipaddress.IPv4Address(SERVER).packed
    length = 20 + len(tcp) + len(payload)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, 64, protocol, 0) + addresses
    return (b"\0" * 12 + struct.pack(">H", ethertype) + ip + tcp + payload).ljust(60, b"\xee")


def capture(frames: Iterable[bytes]) -> bytes:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    return head + b"".join(
        struct.pack("<IIII", 0, 0, len(each), len(each)) + each for each in frames
    )


def record(kind: int, length: int, version: int = 0x0303) -> bytes:
    return struct.pack(">BHH", kind, version, length) + b"\xab" * length


@pytest.mark.parametrize(
    ("count", "share", "first", "last"),
    [(1000, 0.1, 53, 147), (1000, 0.5, 421, 579), (10, 1.0, 10, 10), (10, 0.5, 0, 10)],
)
def test_the_tutorial_knows_which_counts_a_share_of_requests_may_give(
    count: int, share: float, first: int, last: int
) -> None:
    assert likely(count, share) == range(first, last + 1)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_bounds_hold_what_is_expected(count: int, share: float) -> None:
    bounds = likely(count, share)
    assert 0 <= bounds[0] <= math.ceil(count * share)
    assert math.floor(count * share) <= bounds[-1] <= count


def test_counts_of_uniq_and_of_the_load_generator_are_read() -> None:
    assert uniq_counts('    906 reviews-v1\n     94 color="red"\n') == {
        "reviews-v1": 906,
        'color="red"': 94,
    }
    text = "Code  -1 : 5 (0.1 %)\nCode 200 : 5995 (99.9 %)\nAll done 6000 calls, 3696 qps\n"
    assert timed("504 0.505846\n") == ("504", 0.505846)
    assert timed("no pod deploy/curl") == ("", math.inf)
    assert status_counts(text) == {-1: 5, 200: 5995}


@given(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
    st.randoms(use_true_random=False),
)
def test_a_stream_is_put_together_from_segments_in_any_order(
    parts: list[bytes], start: int, chance: random.Random
) -> None:
    sent: list[Sent] = []
    for part in parts:
        sent.append((start + sum(len(each) for _, each in sent), part))
    again = [*sent, *chance.sample(sent, len(sent) // 2)]
    chance.shuffle(again)
    frames = [frame(sequence, payload) for sequence, payload in again]
    assert streams(capture(frames)) == {THERE: b"".join(parts)}


def test_only_tcp_with_data_counts_and_a_half_written_packet_is_left_out() -> None:
    frames = [
        frame(1, b""),
        frame(1, b"data"),
        frame(5, b"datagram", protocol=17),
        frame(5, b"other", ethertype=0x86DD),
        frame(5, b" and more"),
    ]
    assert streams(capture(frames)[:-1]) == {THERE: b"data"}
    assert streams(capture(frames)) == {THERE: b"data and more"}


@pytest.mark.parametrize("text", [b"", b"\0" * 24, b"plain text, and no packet capture at all"])
def test_bytes_that_are_no_capture_of_packets_are_an_error(text: bytes) -> None:
    with pytest.raises(InvalidInputError, match="packet capture"):
        streams(text)


def test_tls_records_are_counted_and_the_last_may_be_cut_short() -> None:
    whole = record(22, 200, 0x0301) + record(20, 1) + record(23, 1000)
    assert tls_records(whole) == 3
    assert tls_records(whole[:-500]) == 3
    assert tls_records(whole + whole[:3]) == 3


@pytest.mark.parametrize(
    "stream",
    [
        b"GET /reviews/0 HTTP/1.1\r\n",
        record(23, 100) + b"GET / HTTP/1.1\r\n",
        record(24, 10),
        record(23, 10, 0x0505),
        struct.pack(">BHH", 23, 0x0303, 20_000),
    ],
)
def test_anything_else_in_a_stream_is_no_tls(stream: bytes) -> None:
    assert tls_records(stream) is None


def test_long_output_is_cut_and_says_so() -> None:
    text = "\n".join(f"line {number}" for number in range(10))
    assert list(trimmed(text, 4)) == ["line 0", "line 1", "line 2", "… 7 more lines"]
    assert list(trimmed(text, 10))[-1] == "line 9"
    assert list(trimmed("abcdefgh\n\n  \n", 4, 5)) == ["abcd…"]


def test_rules_are_compared_without_counters_and_comments() -> None:
    text = "# Generated\n*nat\n:OUTPUT ACCEPT [3:180]\n-A OUTPUT -j MESHD_OUTPUT\nCOMMIT\n"
    assert list(rules_of(text)) == ["nat :OUTPUT ACCEPT", "nat -A OUTPUT -j MESHD_OUTPUT"]


def test_cgroups_of_units_are_no_traces_of_a_node() -> None:
    """Those of a meshd that systemd starts, maybe in a container that boots beside the node."""
    made = "/sys/fs/cgroup/shop/meshd-exec-4711-2"
    units = ("/sys/fs/cgroup/box/system.slice/meshd.service", "/sys/fs/cgroup/meshd.slice")
    assert cgroups_of((made, *units, "/sys/fs/cgroup")) == {made}


def networks(*texts: str) -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(text) for text in texts]


def test_only_what_a_process_has_started_counts_as_its_own() -> None:
    """Started anywhere else, the same command is somebody's own, whatever its environment says."""
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    ) as shell:
        assert shell.stdout
        sleep = int(shell.stdout.readline())
        try:
            assert {shell.pid, sleep} <= descendants(os.getpid())
            assert descendants(shell.pid) == {sleep}
            assert os.getpid() not in descendants(os.getpid())
        finally:
            os.killpg(shell.pid, signal.SIGKILL)


def test_pods_get_a_network_that_nobody_uses() -> None:
    everything = free_networks([])
    assert len(everything) == 128
    taken = networks("198.18.255.128/26", "198.18.254.0/24", "10.0.0.0/8", "198.18.0.0/16")
    assert set(everything) - set(free_networks(taken)) == set(
        networks("198.18.255.0/24", "198.18.254.0/24")
    )
    assert free_networks(networks("198.18.128.0/17")) == []
