"""A ClientHello's ALPN names, from real ones and from anything else."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.xds.front import source_of
from meshd.xds.hello import NotTlsError, offered_protocols


def client_hello(*protocols: str, name: str = "x.internal") -> bytes:
    """As OpenSSL sends it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(hello: bytes, size: int) -> bytes:
    """The same handshake in records of at most so many bytes."""
    body = hello[5:]
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(hello[:3] + len(part).to_bytes(2) + part for part in parts)


protocols = st.lists(st.from_regex(r"[a-z0-9/.-]{1,12}", fullmatch=True), max_size=4)


@given(protocols)
def test_the_names_are_those_that_the_client_offers(names: list[str]) -> None:
    assert offered_protocols(client_hello(*names)) == tuple(names)


def test_nothing_is_said_before_it_is_complete() -> None:
    hello = client_hello("h2", "meshd-join")
    for length in range(len(hello)):
        assert offered_protocols(hello[:length]) is None
    assert offered_protocols(hello + b"more") == ("h2", "meshd-join")


@given(st.integers(1, 200))
def test_it_may_be_spread_over_records(size: int) -> None:
    assert offered_protocols(in_records(client_hello("h2"), size)) == ("h2",)


@given(st.binary(max_size=300))
def test_any_bytes_are_waited_for_or_refused(data: bytes) -> None:
    try:
        assert offered_protocols(b"\x16\x03\x01" + data) in {None, ()} or data
        offered_protocols(data)
    except NotTlsError:
        pass


@given(st.data())
def test_a_damaged_one_is_refused_or_read_but_never_an_error_of_ours(data: st.DataObject) -> None:
    hello = bytearray(client_hello("h2"))
    at = data.draw(st.integers(5, len(hello) - 1))
    hello[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NotTlsError):
        offered_protocols(bytes(hello))


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n", b"\x16\x02\x00\x00\x00"]
)
def test_what_is_not_tls_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(NotTlsError):
        offered_protocols(data)


def test_one_that_never_ends_is_refused() -> None:
    body = b"\x01\xff\xff\xff" + bytes(16_000)
    record = b"\x16\x03\x01" + len(body).to_bytes(2) + body
    with pytest.raises(NotTlsError):
        offered_protocols(record + record + record)


def test_empty_records_are_no_hello() -> None:
    with pytest.raises(NotTlsError):
        offered_protocols(b"\x16\x03\x01\x00\x00")


def test_a_hello_in_countless_records_is_refused() -> None:
    head = b"\x16\x03\x01\x00\x01"
    with pytest.raises(NotTlsError):
        offered_protocols(head + b"\x01" + (head + b"\xff") * 1100)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (("198.18.0.1", 5), "198.18.0.1"),
        (("::ffff:198.18.0.1", 5, 0, 0), "198.18.0.1"),
        (("fd00:198::1", 5, 0, 0), "fd00:198::/64"),
        (("fd00:198::2", 5, 0, 0), "fd00:198::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        (None, ""),
    ],
)
def test_connections_are_counted_for_the_host_that_they_come_from(
    name: object, source: str
) -> None:
    assert source_of(name) == source
