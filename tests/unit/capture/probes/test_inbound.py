"""Which ports the inbound probe tries, and what it makes of what comes back."""

from __future__ import annotations

import pytest

from meshd.capture.probes import listening
from meshd.capture.probes.conntrack import End
from meshd.capture.probes.inbound import Verdict, checksum, combined, judged, ports_to_try
from meshd.capture.rules.options import CaptureOptions
from meshd.model.interception import INBOUND_PORT, REFUSING_PORT

SYN_ACK, RST = 0x12, 0x14
ASKED = End("198.18.0.7", 8080)
ALL = CaptureOptions()


def port_set(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


@pytest.mark.parametrize("answer", [0, SYN_ACK, RST])
def test_a_probe_that_the_inbound_listener_answers_is_captured(answer: int) -> None:
    answerer = End("198.18.0.7", INBOUND_PORT)
    assert judged(ASKED, answerer, answer, INBOUND_PORT) == Verdict()


@pytest.mark.parametrize("answerer", [ASKED, End("198.18.0.9", 80), End("::1", 1)])
def test_what_anybody_else_answers_is_past_the_proxy(answerer: End) -> None:
    found = judged(ASKED, answerer, 0, INBOUND_PORT)
    assert found
    assert str(answerer) in found.problem


def test_an_untracked_answer_is_past_the_proxy() -> None:
    found = judged(ASKED, None, SYN_ACK, INBOUND_PORT)
    assert found
    assert "untracked" in found.problem


def test_a_refusal_shows_nothing_but_where_all_is_to_be_refused() -> None:
    found = judged(ASKED, None, RST, INBOUND_PORT)
    assert found
    assert (found.problem, bool(found.unseen)) == ("", True)
    assert judged(ASKED, None, RST, REFUSING_PORT) == Verdict()


def test_silence_is_waited_for() -> None:
    assert judged(ASKED, None, 0, INBOUND_PORT) is None


def test_declared_ports_and_those_that_are_listened_on_are_tried() -> None:
    assert ports_to_try(port_set(80), port_set(81, INBOUND_PORT), ALL) == (80, 81)


def test_declared_ports_are_tried_before_any_number_of_others() -> None:
    tried = ports_to_try(port_set(60000), port_set(*range(1, 10_000)), ALL)
    assert 60000 in tried
    assert len(tried) < 100


def test_each_port_that_somebody_listens_on_is_tried_some_time() -> None:
    heard = port_set(*range(1, 100))
    tried = {port for _ in range(200) for port in ports_to_try(port_set(), heard, ALL)}
    assert tried == heard


def test_ports_that_are_not_captured_are_not_tried() -> None:
    options = CaptureOptions(exclude_inbound_ports=(80,))
    assert ports_to_try(port_set(80, 81), port_set(), options) == (81,)
    options = CaptureOptions(include_inbound_ports=(80,))
    assert ports_to_try(port_set(80, 81), port_set(82), options) == (80,)
    options = CaptureOptions(include_inbound_ports=())
    assert ports_to_try(port_set(80), port_set(82), options) == ()


def test_without_a_port_any_is_as_good() -> None:
    (port,) = ports_to_try(port_set(), port_set(), ALL)
    assert port not in (0, INBOUND_PORT)


def test_a_known_problem_is_kept_beside_what_is_not_known() -> None:
    found = combined([Verdict(), Verdict("a"), Verdict(unseen="b"), Verdict("a")])
    assert found == Verdict("a", "b")


def test_the_checksum_is_that_of_the_rfc() -> None:
    """RFC 1071, section 3: the sum is ddf2."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF


def diagnosed(family: int, port: int, address: bytes) -> bytes:
    return bytes([family, 10, 0, 0]) + port.to_bytes(2) + bytes(2) + address.ljust(16, b"\0")


def test_a_port_counts_where_somebody_listens_for_others() -> None:
    any_v4, own_v4, loopback = bytes(4), bytes([198, 18, 0, 1]), bytes([127, 0, 0, 1])
    assert list(listening.of_message(diagnosed(2, 80, any_v4))) == [80]
    assert list(listening.of_message(diagnosed(2, 81, own_v4))) == [81]
    assert not list(listening.of_message(diagnosed(2, 82, loopback)))
    assert list(listening.of_message(diagnosed(10, 83, bytes(16)))) == [83]
    assert not list(listening.of_message(diagnosed(10, 84, bytes(15) + b"\1")))
    assert not list(listening.of_message(b""))
